//! Parts for tests, of this crate and of its users: a whole cluster in the simulator, a group of protocol cores, and a
//! disk to lose.

pub mod cluster;
pub mod group;
pub mod mem_disk;
