//! Writing thrift binary to the end of a buffer.
//!
//! Nothing here can fail: lengths above `i32::MAX` cannot come from values that fit into a frame,
//! and would be refused by the frame writer's own limit anyway.

use bytes::BytesMut;

use super::{Encode, ttype};

/// Appends to a buffer. Knows whether the reader at the other end understands `host_port` fields.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut BytesMut,
    host_ports: bool,
}

impl<'a> Writer<'a> {
    /// A writer that includes optional `host_port` fields.
    #[inline]
    pub fn new(out: &'a mut BytesMut) -> Self {
        Self { out, host_ports: true }
    }

    /// A writer that leaves optional `host_port` fields out. Older clients on `THFT` connections
    /// misread the rest of a message that holds one, and no client there needs them.
    #[inline]
    pub fn without_host_ports(out: &'a mut BytesMut) -> Self {
        Self { out, host_ports: false }
    }

    /// Whether optional `host_port` fields are written.
    #[inline]
    #[must_use]
    pub fn host_ports(&self) -> bool {
        self.host_ports
    }

    /// The buffer, for content that is not thrift.
    #[inline]
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.out
    }

    /// Appends raw bytes.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Appends a field header.
    #[inline]
    pub fn field(&mut self, ttype: u8, id: i16) {
        let [a, b] = id.to_be_bytes();
        self.put(&[ttype, a, b]);
    }

    /// Ends a structure.
    #[inline]
    pub fn stop(&mut self) {
        self.put(&[ttype::STOP]);
    }

    /// Appends a length and the bytes.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.put(&(bytes.len() as i32).to_be_bytes());
        self.put(bytes);
    }

    /// Appends field header, length and bytes.
    #[inline]
    pub fn bytes_field(&mut self, ttype: u8, id: i16, bytes: &[u8]) {
        let [i, j] = id.to_be_bytes();
        let [a, b, c, d] = (bytes.len() as i32).to_be_bytes();
        self.out.reserve(7 + bytes.len());
        self.put(&[ttype, i, j, a, b, c, d]);
        self.put(bytes);
    }

    /// Appends the header of a list or set.
    #[inline]
    pub fn list_head(&mut self, element: u8, count: usize) {
        let [a, b, c, d] = (count as i32).to_be_bytes();
        self.put(&[element, a, b, c, d]);
    }

    /// Appends the header of a map.
    #[inline]
    pub fn map_head(&mut self, key: u8, value: u8, count: usize) {
        let [a, b, c, d] = (count as i32).to_be_bytes();
        self.put(&[key, value, a, b, c, d]);
    }

    /// Begins a list field whose count is not known yet; give the mark to
    /// [`end_list`](Self::end_list).
    pub fn begin_list(&mut self, id: i16, element: u8) -> ListMark {
        self.field(ttype::LIST, id);
        let mark = ListMark { at: self.out.len() + 1 };
        self.list_head(element, 0);
        mark
    }

    /// Sets the count of a list that [`begin_list`](Self::begin_list) opened in this same buffer.
    pub fn end_list(&mut self, mark: ListMark, count: usize) {
        self.out[mark.at..mark.at + 4].copy_from_slice(&(count as i32).to_be_bytes());
    }

    /// Appends `value` as the only field of an outer structure.
    #[inline]
    pub fn wrapped<T: Encode>(&mut self, id: i16, value: &T) {
        value.write_as_field(id, self);
        self.stop();
    }
}

/// Where the count of an open list is; see [`Writer::begin_list`].
#[derive(Debug)]
#[must_use = "the list keeps the count 0 unless it is ended"]
pub struct ListMark {
    at: usize,
}
