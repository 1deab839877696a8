//! Parts for tests, of this crate and of its users: a whole cluster in the simulator, and a disk to lose.

pub mod cluster;
pub mod mem_disk;
