//! Who belongs to a partition: how groups change, and what the meta server does about groups that are not well.
//!
//! Only [`update`] and a dead primary change a group, each change growing its ballot by one and durable before anybody
//! hears of it. Everything else is a *proposal* to the replica server that has to act, repeated until the change
//! shows or makes no sense any more.

pub mod cure;
pub mod ddd;
#[cfg(test)]
mod faults;
pub mod membership;
pub mod placement;
mod proposal;
mod tails;
#[cfg(test)]
mod tests;
mod update;
