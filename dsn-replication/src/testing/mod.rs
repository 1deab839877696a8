//! Parts for tests, of this crate and of its users.

pub mod mem_disk;
