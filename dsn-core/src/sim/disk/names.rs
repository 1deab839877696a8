//! Names of one file system: what the running system sees, what is durable, and the changes in between.
//!
//! Changes to names are kept in order until a directory sync makes them durable. A power loss applies some of the
//! rest: per directory always a prefix, so that no state appears that no order of write-back could have left.

use super::content::Content;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path};

/// Number of a file or directory.
pub(super) type Ino = u64;

/// The root directory.
pub(super) const ROOT: Ino = 1;

#[derive(Clone, Debug)]
pub(super) enum Inode {
    Dir { live: BTreeMap<String, Ino>, durable: BTreeMap<String, Ino> },
    File { content: Content, links: u32, open: u32 },
}

/// One change of names that happens as a whole.
#[derive(Clone, Debug)]
struct Change {
    /// Directory, name, what it names from then on.
    sets: Vec<(Ino, String, Option<Ino>)>,
}

impl Change {
    fn dirs(&self) -> impl Iterator<Item = Ino> + '_ {
        self.sets.iter().map(|set| set.0)
    }
}

/// See the module's header.
#[derive(Clone, Debug)]
pub(super) struct Names {
    inodes: BTreeMap<Ino, Inode>,
    next: Ino,
    /// Changes that are not durable, oldest first.
    pending: Vec<Change>,
    /// A sweep happens when there are more inodes than this.
    sweep_at: usize,
    /// Bytes that all files take.
    pub(super) used: u64,
}

impl Default for Names {
    fn default() -> Self {
        let root = Inode::Dir { live: BTreeMap::new(), durable: BTreeMap::new() };
        Self {
            inodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            pending: Vec::new(),
            sweep_at: 256,
            used: 0,
        }
    }
}

/// The parts of a path below the root; `.` and leading slashes mean nothing.
pub(super) fn parts(path: &Path) -> Vec<String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    parts
}

impl Names {
    fn dir(&self, ino: Ino) -> io::Result<&BTreeMap<String, Ino>> {
        match self.inodes.get(&ino) {
            Some(Inode::Dir { live, .. }) => Ok(live),
            Some(Inode::File { .. }) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// The content of a file.
    pub(super) fn file(&self, ino: Ino) -> io::Result<&Content> {
        match self.inodes.get(&ino) {
            Some(Inode::File { content, .. }) => Ok(content),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    /// The content of a file, to be changed by `f`; keeps count of the space.
    pub(super) fn change<R>(&mut self, ino: Ino, f: impl FnOnce(&mut Content) -> R) -> Option<R> {
        match self.inodes.get_mut(&ino) {
            Some(Inode::File { content, .. }) => {
                let before = content.footprint();
                let result = f(content);
                self.used = (self.used + content.footprint()).saturating_sub(before);
                Some(result)
            }
            _ => None,
        }
    }

    pub(super) fn resolve(&self, parts: &[String]) -> io::Result<Ino> {
        let mut ino = ROOT;
        for part in parts {
            ino = *self.dir(ino)?.get(part).ok_or(ErrorKind::NotFound)?;
        }
        Ok(ino)
    }

    /// The directory that holds the last part, and that part.
    pub(super) fn parent<'a>(&self, parts: &'a [String]) -> io::Result<(Ino, &'a str)> {
        let (name, above) = parts.split_last().ok_or(ErrorKind::InvalidInput)?;
        let dir = self.resolve(above)?;
        self.dir(dir)?;
        Ok((dir, name))
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.inodes.get(&ino), Some(Inode::Dir { .. }))
    }

    /// Names in a directory.
    pub(super) fn names(&self, ino: Ino) -> io::Result<Vec<String>> {
        Ok(self.dir(ino)?.keys().cloned().collect())
    }

    /// Entries of a directory: name, whether a directory, length.
    pub(super) fn entries(&self, ino: Ino) -> io::Result<Vec<(String, bool, u64)>> {
        let entries = self.dir(ino)?.iter().map(|(name, ino)| match self.inodes.get(ino) {
            Some(Inode::File { content, .. }) => (name.clone(), false, content.len()),
            _ => (name.clone(), true, 0),
        });
        Ok(entries.collect())
    }

    fn apply(&mut self, sets: Vec<(Ino, String, Option<Ino>)>) {
        for (dir, name, target) in &sets {
            let before = match self.inodes.get_mut(dir) {
                Some(Inode::Dir { live, .. }) => match target {
                    Some(ino) => live.insert(name.clone(), *ino),
                    None => live.remove(name),
                },
                _ => None,
            };
            self.link(*target, 1);
            self.link(before, -1);
        }
        self.pending.push(Change { sets });
    }

    fn link(&mut self, ino: Option<Ino>, by: i32) {
        let Some(Inode::File { content, links, open }) =
            ino.and_then(|ino| self.inodes.get_mut(&ino))
        else {
            return;
        };
        let before = *links;
        *links = links.saturating_add_signed(by);
        // A file without names that nobody has open gives its space back.
        if *links == 0 && before > 0 && *open == 0 {
            self.used = self.used.saturating_sub(content.footprint());
        } else if before == 0 && *links > 0 && *open == 0 {
            self.used += content.footprint();
        }
    }

    pub(super) fn opened(&mut self, ino: Ino, by: i32) {
        if let Some(Inode::File { content, links, open }) = self.inodes.get_mut(&ino) {
            *open = open.saturating_add_signed(by);
            if *links == 0 && *open == 0 {
                self.used = self.used.saturating_sub(content.footprint());
            }
        }
    }

    /// Files that are open.
    pub(super) fn open_files(&self) -> usize {
        self.inodes
            .values()
            .filter(|inode| matches!(inode, Inode::File { open, .. } if *open > 0))
            .count()
    }

    pub(super) fn create(&mut self, dir: Ino, name: &str, is_dir: bool) -> Ino {
        let ino = self.next;
        self.next += 1;
        let inode = if is_dir {
            Inode::Dir { live: BTreeMap::new(), durable: BTreeMap::new() }
        } else {
            Inode::File { content: Content::default(), links: 0, open: 0 }
        };
        self.inodes.insert(ino, inode);
        self.apply(vec![(dir, name.to_owned(), Some(ino))]);
        self.sweep();
        ino
    }

    pub(super) fn remove(&mut self, dir: Ino, name: &str) {
        self.apply(vec![(dir, name.to_owned(), None)]);
    }

    pub(super) fn add_link(&mut self, dir: Ino, name: &str, ino: Ino) {
        self.apply(vec![(dir, name.to_owned(), Some(ino))]);
    }

    pub(super) fn rename(&mut self, from: (Ino, &str), to: (Ino, &str), ino: Ino) {
        self.apply(vec![(to.0, to.1.to_owned(), Some(ino)), (from.0, from.1.to_owned(), None)]);
    }

    fn make_durable(&mut self, change: Change) {
        for (dir, name, target) in change.sets {
            if let Some(Inode::Dir { durable, .. }) = self.inodes.get_mut(&dir) {
                match target {
                    Some(ino) => durable.insert(name, ino),
                    None => durable.remove(&name),
                };
            }
        }
    }

    /// Whether names of a directory are not durable.
    pub(super) fn has_pending(&self, dir: Ino) -> bool {
        self.pending.iter().any(|change| change.dirs().any(|changed| changed == dir))
    }

    /// Makes the names of a directory durable, and with them what they depend on.
    pub(super) fn sync_dir(&mut self, dir: Ino) {
        let mut dirs = BTreeSet::from([dir]);
        let mut chosen = vec![false; self.pending.len()];
        for (index, change) in self.pending.iter().enumerate().rev() {
            if change.dirs().any(|dir| dirs.contains(&dir)) {
                chosen[index] = true;
                dirs.extend(change.dirs());
            }
        }
        let mut chosen = chosen.into_iter();
        let pending = std::mem::take(&mut self.pending);
        let (durable, rest): (Vec<Change>, Vec<Change>) =
            pending.into_iter().partition(|_| chosen.next().unwrap_or(false));
        self.pending = rest;
        for change in durable {
            self.make_durable(change);
        }
    }

    /// Ends every open file; what a process leaves behind when it dies.
    pub(super) fn close_all(&mut self) {
        for inode in self.inodes.values_mut() {
            if let Inode::File { open, .. } = inode {
                *open = 0;
            }
        }
        self.recount();
    }

    /// What is left after a power loss.
    pub(super) fn power_loss(&mut self, rng: &mut Rng) {
        let pending = std::mem::take(&mut self.pending);
        if rng.ratio(1, 2) {
            // Written back in order, as a journal does.
            let kept = rng.below(pending.len() as u64 + 1) as usize;
            for change in pending.into_iter().take(kept) {
                self.make_durable(change);
            }
        } else {
            let mut stopped = BTreeSet::new();
            for change in pending {
                if rng.ratio(1, 4) || change.dirs().any(|dir| stopped.contains(&dir)) {
                    stopped.extend(change.dirs());
                } else {
                    self.make_durable(change);
                }
            }
        }
        for inode in self.inodes.values_mut() {
            match inode {
                Inode::Dir { live, durable } => live.clone_from(durable),
                Inode::File { content, open, .. } => {
                    *open = 0;
                    // Each file's fate follows from the order of inode numbers.
                    content.power_loss(rng);
                }
            }
        }
        self.sweep_at = 0;
        self.sweep();
        self.recount();
    }

    /// What is not durable is not going to be.
    pub(super) fn lose_pending(&mut self) {
        self.pending.clear();
    }

    /// Everything becomes durable.
    pub(super) fn write_back(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            self.make_durable(change);
        }
        for inode in self.inodes.values_mut() {
            if let Inode::File { content, .. } = inode {
                content.sync();
            }
        }
    }

    fn recount(&mut self) {
        let mut links: BTreeMap<Ino, u32> = BTreeMap::new();
        for inode in self.inodes.values() {
            if let Inode::Dir { live, .. } = inode {
                for ino in live.values() {
                    *links.entry(*ino).or_default() += 1;
                }
            }
        }
        self.used = 0;
        for (ino, inode) in &mut self.inodes {
            if let Inode::File { content, links: count, open } = inode {
                *count = links.get(ino).copied().unwrap_or(0);
                if *count > 0 || *open > 0 {
                    self.used += content.footprint();
                }
            }
        }
    }

    /// Forgets what no name, no pending change and no open file refers to, when much has gathered.
    fn sweep(&mut self) {
        if self.inodes.len() <= self.sweep_at {
            return;
        }
        let mut reached = BTreeSet::from([ROOT]);
        let mut work = vec![ROOT];
        for change in &self.pending {
            for (dir, _, target) in &change.sets {
                work.extend([Some(*dir), *target].into_iter().flatten());
            }
        }
        for (ino, inode) in &self.inodes {
            if matches!(inode, Inode::File { open, .. } if *open > 0) {
                work.push(*ino);
            }
        }
        while let Some(ino) = work.pop() {
            reached.insert(ino);
            if let Some(Inode::Dir { live, durable }) = self.inodes.get(&ino) {
                let below = live.values().chain(durable.values());
                work.extend(below.copied().filter(|ino| !reached.contains(ino)));
            }
        }
        self.inodes.retain(|ino, _| reached.contains(ino));
        self.sweep_at = (self.inodes.len() * 2).max(256);
    }

    /// Files that exist, by path.
    pub(super) fn files(&self) -> Vec<(String, Ino)> {
        let mut found = Vec::new();
        let mut work = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = work.pop() {
            match self.inodes.get(&ino) {
                Some(Inode::Dir { live, .. }) => {
                    work.extend(live.iter().map(|(name, ino)| (format!("{path}/{name}"), *ino)));
                }
                Some(Inode::File { .. }) => found.push((path, ino)),
                None => {}
            }
        }
        found.sort();
        found
    }
}
