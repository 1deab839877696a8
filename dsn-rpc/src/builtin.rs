//! What every server answers by itself: operator commands and the opening of an authentication.

use dsn_core::command::{CommandCall, ReplySink};
use dsn_core::exec::{Ctx, Handle};

use crate::error_code::ErrorCode;
use crate::exchange::Exchange;
use crate::rpc_loop::LPC_RPC_COMMAND;
use crate::service::{Replier, Request, ServiceTable};
use crate::thrift::Blob;

dsn_core::task_codes! {
    /// Codes that every server answers.
    pub BUILTIN_CODES;
    /// Runs an operator command; answers with its text.
    pub RPC_CLI_CLI_CALL: Rpc, Common, "THREAD_POOL_DEFAULT";
    /// A step of an authentication.
    pub RPC_NEGOTIATION: Rpc, Common, "THREAD_POOL_DEFAULT";
}

crate::message! {
    /// A call of an operator command.
    pub struct Command {
        /// The command.
        1: cmd: String,
        /// The words after it.
        2: arguments: Vec<String>,
    }

    /// A step of an authentication, in either direction.
    pub struct Negotiation {
        /// Which step.
        1: status: i32,
        /// What the mechanism has to say.
        2: msg: Blob,
    }
}

/// The status that says that this server does not authenticate.
pub const SASL_AUTH_DISABLE: i32 = 9;

/// Adds them, where the application has no handlers of its own.
pub(crate) fn add_services(table: &mut ServiceTable) {
    table.on_default(&RPC_CLI_CLI_CALL, command);
    table.on_default(&RPC_NEGOTIATION, |ctx, request, replier| {
        match request.decode::<Negotiation>() {
            Ok(_) => {
                replier.reply(ctx, &Negotiation { status: SASL_AUTH_DISABLE, msg: Blob::new() });
            }
            Err(_) => replier.error(ctx, ErrorCode::InvalidParameters),
        }
    });
}

fn command(ctx: &mut Ctx<'_>, request: Request, replier: Replier) {
    let Ok(Command { cmd, arguments }) = request.decode() else {
        return replier.error(ctx, ErrorCode::InvalidParameters);
    };
    run(ctx, &CommandCall::new(cmd, arguments), move |ctx, text| replier.reply(ctx, &text));
}

/// Runs a command; `answer` gets its text on this worker, in a later turn. What `answer` holds is dropped when
/// the node ends first.
pub(crate) fn run(
    ctx: &mut Ctx<'_>,
    call: &CommandCall,
    answer: impl FnOnce(&mut Ctx<'_>, String) + Send + 'static,
) {
    let Some(home) = Exchange::of(ctx).map(|exchange| exchange.me) else { return };
    let handle = Handle::new(ctx.node());
    // The command may answer from any thread, and has no context then.
    let sink = ReplySink::new(move |text| {
        let _ = handle.post(home, &LPC_RPC_COMMAND, move |_, ctx| answer(ctx, text));
    });
    ctx.node().commands().clone().run(call, sink);
}
