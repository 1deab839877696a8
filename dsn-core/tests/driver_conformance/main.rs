//! One list of cases, two runners: what the native driver does, the simulator does, and the other way round.
//!
//! A case is a plain function over a [`World`](world::World): a node with two workers whose driver it must not be able
//! to tell. Whatever a simulated run promises about a service rests on this.
#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod clock;
mod disk;
mod sockets;
mod work;
mod world;

macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => {
        mod native {
            $($(
                #[test]
                fn $case() {
                    crate::world::native(stringify!($case), crate::$module::$case);
                }
            )+)+
        }

        mod simulator {
            $($(
                #[test]
                fn $case() {
                    crate::world::simulated(crate::$module::$case);
                }
            )+)+
        }
    };
}

cases! {
    clock:
        the_monotonic_clock_never_goes_back,
        workers_share_their_clocks,
        timers_fire_in_order_and_never_early,
        a_disarmed_timer_stays_silent,
        timers_vanish_with_their_resident,
        a_period_repeats_until_its_resident_ends,
        a_parked_worker_wakes_for_a_post,
        a_parked_worker_wakes_for_a_socket,
        a_busy_worker_still_sees_timers_and_sockets;
    sockets:
        both_ends_know_each_other,
        accepting_without_a_caller_would_block,
        an_accepted_connection_may_move_to_another_worker,
        bytes_arrive_in_order_and_whole,
        empty_and_many_buffers_are_written_as_one_stream,
        a_full_connection_would_block_and_tells_when_there_is_room,
        reading_without_data_would_block,
        the_end_of_a_stream_follows_its_data,
        a_short_read_is_followed_by_an_event_for_the_end,
        unread_data_at_close_resets_the_peer,
        writing_to_a_closed_peer_fails,
        a_half_closed_connection_still_answers,
        a_refused_connect_says_so,
        an_address_in_use_is_refused,
        closing_a_listener_refuses_and_frees_its_address,
        connections_waiting_at_a_closed_listener_end,
        a_dropped_accepted_connection_is_closed,
        a_closed_socket_is_no_socket,
        events_of_a_closed_socket_reach_nobody;
    disk:
        open_modes,
        vectored_writes_and_reads,
        files_may_have_holes_and_be_cut,
        sync_and_allocate_keep_the_content,
        read_only_handles_refuse_writes,
        rename_replaces_and_moves,
        unlink_keeps_open_files,
        directories_are_made_listed_and_removed,
        directories_are_synced,
        hard_links_share_content,
        paths_through_files_are_errors,
        durable_files_replace_as_a_whole,
        space_is_reported,
        the_run_of_the_machine_has_a_name;
    work:
        posts_from_one_worker_arrive_in_order,
        posts_from_outside_arrive_in_order,
        workers_play_ping_pong,
        end_of_turn_work_runs_in_phases,
        blocking_jobs_bring_their_results_back,
        a_worker_goes_on_while_a_job_runs,
        jobs_of_one_thread_run_in_order,
        jobs_look_up_names,
        a_job_that_panics_poisons_who_waits,
        a_job_whose_resident_is_gone_vanishes,
        a_slot_used_again_is_another_resident,
        a_panic_costs_one_resident,
        a_panic_at_the_end_costs_one_resident;
}
