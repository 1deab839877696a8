//! The bytes of one file, twice: as the running system sees them, and as the platter has them.
//!
//! Pages of 4 KiB are shared between the two until one is written again, so a sync costs a reference per dirty page.

use crate::rng::Rng;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// Size of a page, what the kernel writes back at once.
pub const PAGE: usize = 4096;
/// Size of a sector, what a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// `None` is a page of zeros.
type Page = Option<Arc<[u8; PAGE]>>;

#[derive(Clone, Debug, Default)]
struct Pair {
    live: Page,
    durable: Page,
    dirty: bool,
}

/// See the module's header.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pages: Vec<Pair>,
    dirty: Vec<u32>,
    len: u64,
    durable_len: u64,
    /// Bytes reserved beyond the length.
    pub(super) reserved: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes it takes on the file system.
    pub(super) fn footprint(&self) -> u64 {
        self.len.max(self.reserved).next_multiple_of(PAGE as u64)
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Bytes {
        let room = self.len.saturating_sub(offset);
        let len = usize::try_from(room).unwrap_or(usize::MAX).min(len);
        let mut out = BytesMut::with_capacity(len);
        while out.len() < len {
            let (page, start) = place(offset + out.len() as u64);
            let take = (PAGE - start).min(len - out.len());
            match self.pages.get(page).and_then(|pair| pair.live.as_ref()) {
                Some(bytes) => out.extend_from_slice(&bytes[start..start + take]),
                None => out.put_bytes(0, take),
            }
        }
        out.freeze()
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let (page, start) = place(offset + done as u64);
            let take = (PAGE - start).min(data.len() - done);
            self.touch(page);
            let live = self.pages[page].live.get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(live)[start..start + take].copy_from_slice(&data[done..done + take]);
            done += take;
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    pub(super) fn truncate(&mut self, len: u64) {
        if len < self.len {
            let (first, start) = place(len);
            let last = self.pages.len();
            for page in first..last {
                if self.pages[page].live.is_none() {
                    continue;
                }
                self.touch(page);
                if page == first && start > 0 {
                    if let Some(live) = &mut self.pages[page].live {
                        Arc::make_mut(live)[start..].fill(0);
                    }
                } else {
                    self.pages[page].live = None;
                }
            }
            self.reserved = self.reserved.min(len);
        }
        self.len = len;
    }

    fn touch(&mut self, page: usize) {
        if self.pages.len() <= page {
            self.pages.resize(page + 1, Pair::default());
        }
        if !self.pages[page].dirty {
            self.pages[page].dirty = true;
            self.dirty.push(page as u32);
        }
    }

    /// Whether anything would be lost by a power loss.
    #[cfg(test)]
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.len != self.durable_len
    }

    /// Bytes a sync has to move.
    pub(super) fn dirty_bytes(&self) -> u64 {
        (self.dirty.len() * PAGE) as u64
    }

    /// Everything becomes durable.
    pub(super) fn sync(&mut self) {
        for page in self.dirty.drain(..) {
            let pair = &mut self.pages[page as usize];
            pair.dirty = false;
            pair.durable.clone_from(&pair.live);
        }
        self.durable_len = self.len;
        self.pages.truncate(self.len.div_ceil(PAGE as u64) as usize);
    }

    /// A failed write-back: the pages count as clean, but never reached the disk. The length did.
    pub(super) fn lose_dirty(&mut self) {
        for page in self.dirty.drain(..) {
            self.pages[page as usize].dirty = false;
        }
        self.durable_len = self.len;
    }

    /// What is left after a power loss: synced bytes, and a random part of the others.
    pub(super) fn power_loss(&mut self, rng: &mut Rng) {
        let len = match rng.below(3) {
            0 => self.durable_len,
            1 => self.len,
            _ => rng.range(self.durable_len.min(self.len), self.durable_len.max(self.len)),
        };
        let dirty = std::mem::take(&mut self.dirty);
        let style = rng.below(4);
        for page in dirty {
            let pair = &mut self.pages[page as usize];
            pair.dirty = false;
            let outcome = if style == 3 { rng.below(3) } else { style };
            match outcome {
                0 => {}
                1 => pair.durable.clone_from(&pair.live),
                _ => pair.durable = torn(&pair.durable, &pair.live, rng),
            }
        }
        for pair in &mut self.pages {
            pair.live.clone_from(&pair.durable);
        }
        self.reserved = 0;
        // The durable image may hold pages past the length that was chosen; they are not the file's any more.
        self.len = self.pages.len() as u64 * PAGE as u64;
        if self.len > len {
            self.truncate(len);
        } else {
            self.len = len;
        }
        self.sync();
    }

    /// Where the zeros begin that some files end with; the end of a file that is nothing but zeros.
    fn end_of_data(&self) -> u64 {
        let of_page = |(n, pair): (usize, &Pair)| {
            let last = pair.live.as_ref()?.iter().rposition(|byte| *byte != 0)?;
            Some((n * PAGE + last + 1) as u64)
        };
        self.pages.iter().enumerate().rev().find_map(of_page).unwrap_or(self.len)
    }

    /// Changes one bit for good, before the last `spare` bytes of the data. `false` when there is none.
    pub(super) fn flip(&mut self, spare: u64, rng: &mut Rng) -> bool {
        let len = self.end_of_data().min(self.durable_len).saturating_sub(spare);
        if len == 0 {
            return false;
        }
        let (page, start) = place(rng.below(len));
        let bit = 1 << rng.below(8);
        if self.pages.len() <= page {
            self.pages.resize(page + 1, Pair::default());
        }
        let pair = &mut self.pages[page];
        let flip = |page: &mut Page| {
            Arc::make_mut(page.get_or_insert_with(|| Arc::new([0; PAGE])))[start] ^= bit;
        };
        flip(&mut pair.durable);
        if !pair.dirty {
            pair.live.clone_from(&pair.durable);
        }
        true
    }
}

/// A mix of old and new, sector by sector.
fn torn(old: &Page, new: &Page, rng: &mut Rng) -> Page {
    let zero = [0; PAGE];
    let mut bytes = **old.as_ref().unwrap_or(&Arc::new(zero));
    let fresh = new.as_ref().map_or(&zero, |page| &**page);
    for sector in 0..PAGE / SECTOR {
        if rng.ratio(1, 2) {
            let range = sector * SECTOR..(sector + 1) * SECTOR;
            bytes[range.clone()].copy_from_slice(&fresh[range]);
        }
    }
    Some(Arc::new(bytes))
}

fn place(offset: u64) -> (usize, usize) {
    ((offset / PAGE as u64) as usize, (offset % PAGE as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &Content, model: &[u8]) {
        assert_eq!(content.len(), model.len() as u64);
        assert_eq!(&content.read(0, usize::MAX)[..], model);
    }

    #[test]
    fn reads_and_writes_agree_with_a_vector() {
        for seed in 0..50 {
            println!("seed {seed}");
            let mut rng = Rng::new(seed);
            let (mut content, mut model) = (Content::default(), Vec::new());
            for _ in 0..100 {
                match rng.below(4) {
                    0 => {
                        let len = rng.below(20_000);
                        content.truncate(len);
                        model.resize(len as usize, 0);
                    }
                    1 => content.sync(),
                    _ => {
                        let offset = rng.below(15_000) as usize;
                        let mut data = vec![0; rng.below(6_000) as usize];
                        rng.fill(&mut data);
                        content.write(offset as u64, &data);
                        if !data.is_empty() {
                            model.resize(model.len().max(offset + data.len()), 0);
                            model[offset..offset + data.len()].copy_from_slice(&data);
                        } else {
                            model.resize(model.len().max(offset), 0);
                        }
                    }
                }
                check(&content, &model);
            }
        }
    }

    #[test]
    fn synced_bytes_survive_and_others_may_not() {
        let (mut kept, mut lost, mut torn) = (0, 0, 0);
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let mut content = Content::default();
            content.write(0, &[1; 3000]);
            content.sync();
            content.write(3000, &[2; 9000]);
            content.power_loss(&mut rng);
            let all = content.read(0, usize::MAX);
            assert!(all.len() >= 3000 && all[..3000].iter().all(|&b| b == 1), "seed {seed}");
            let tail = &all[3000..];
            assert!(tail.iter().all(|&b| b == 2 || b == 0), "seed {seed}");
            match (tail.iter().all(|&b| b == 2), tail.contains(&2)) {
                (true, true) if tail.len() == 9000 => kept += 1,
                (_, false) => lost += 1,
                _ => torn += 1,
            }
            assert!(!content.is_dirty());
        }
        assert!(kept > 20 && lost > 20 && torn > 20, "{kept} {lost} {torn}");
    }

    #[test]
    fn a_failed_sync_loses_what_it_was_for_even_if_the_next_succeeds() {
        let mut content = Content::default();
        content.write(0, &[1; 100]);
        content.sync();
        content.write(0, &[2; 100]);
        content.lose_dirty();
        assert_eq!(content.read(0, 1)[0], 2, "still in the page cache");
        content.sync();
        content.power_loss(&mut Rng::new(1));
        assert_eq!(content.read(0, 1)[0], 1);
    }

    #[test]
    fn a_flipped_bit_is_one_bit() {
        let mut content = Content::default();
        content.write(0, &[0; 5000]);
        content.sync();
        assert!(!content.flip(5000, &mut Rng::new(3)));
        assert!(content.flip(4000, &mut Rng::new(3)));
        assert!(content.read(0, 1000).iter().any(|byte| *byte != 0), "in what is not spared");
        let ones: u32 = content.read(0, 5000).iter().map(|b| b.count_ones()).sum();
        assert_eq!(ones, 1);
        assert!(!Content::default().flip(0, &mut Rng::new(3)));
    }

    #[test]
    fn a_bit_is_flipped_in_what_a_file_has_in_front_of_its_zeros() {
        for seed in 0..50 {
            let mut content = Content::default();
            content.write(0, &[0xff; 700]);
            content.write(700, &[0; 30_000]);
            content.sync();
            assert!(content.flip(0, &mut Rng::new(seed)), "seed {seed}");
            assert!(content.read(0, 700).iter().any(|byte| *byte != 0xff), "seed {seed}");
        }
    }
}
