//! Files and directories: what each operation does, and the kinds of errors.

use crate::world::World;
use bytes::Bytes;
use dsn_core::disk::{Disk, File, OpenMode, SyncMode, read_file, write_file_durable};
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The raw error of a write through a handle that is for reading ("bad file descriptor").
const EBADF: i32 = 9;

fn kind<T>(outcome: Result<T>) -> ErrorKind {
    outcome.err().map(|error| error.kind()).expect("an error")
}

/// A file with some content.
fn file(disk: &Arc<dyn Disk>, path: &Path, content: &str) -> Arc<dyn File> {
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_at(0, &[Bytes::copy_from_slice(content.as_bytes())]).unwrap();
    file
}

fn text(disk: &Arc<dyn Disk>, path: &Path) -> String {
    String::from_utf8(read_file(&**disk, path).unwrap().to_vec()).unwrap()
}

fn names(disk: &Arc<dyn Disk>, path: &Path) -> Vec<String> {
    disk.list(path).unwrap().into_iter().map(|entry| entry.name).collect()
}

pub fn open_modes(world: &mut World) {
    let (disk, dir) = world.disk();
    let path = dir.join("a");
    assert_eq!(kind(disk.open(&path, OpenMode::Read)), ErrorKind::NotFound);
    assert!(!disk.exists(&path));
    let made = disk.open(&path, OpenMode::ReadWrite).unwrap();
    assert!(disk.exists(&path) && made.is_empty().unwrap());
    made.write_at(0, &["kept".into()]).unwrap();
    assert_eq!(kind(disk.open(&path, OpenMode::CreateNew)), ErrorKind::AlreadyExists);
    let again = disk.open(&path, OpenMode::ReadWrite).unwrap();
    assert_eq!(again.read_at(0, 10).unwrap(), "kept");
    let read = disk.open(&path, OpenMode::Read).unwrap();
    made.write_at(4, &[" too".into()]).unwrap();
    assert_eq!(read.read_at(0, 10).unwrap(), "kept too", "handles see each other's writes");
    for mode in [OpenMode::ReadWrite, OpenMode::CreateNew] {
        assert_eq!(kind(disk.open(&dir.join("none/a"), mode)), ErrorKind::NotFound);
    }
    assert_eq!(kind(disk.open(&dir, OpenMode::ReadWrite)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.open(&dir, OpenMode::CreateNew)), ErrorKind::AlreadyExists);
}

pub fn vectored_writes_and_reads(world: &mut World) {
    let (disk, dir) = world.disk();
    let file = disk.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
    // More buffers than one call of the system takes, empty ones among them.
    let bufs: Vec<Bytes> = (0..3_000_u32)
        .map(|n| if n % 7 == 0 { Bytes::new() } else { format!("{n},").into() })
        .collect();
    let whole: Vec<u8> = bufs.concat();
    file.write_at(0, &bufs).unwrap();
    assert_eq!(file.len().unwrap(), whole.len() as u64);
    assert_eq!(file.read_at(0, whole.len()).unwrap(), whole);
    assert_eq!(file.read_at(5, 100).unwrap(), whole[5..105]);
    let end = whole.len() as u64;
    assert_eq!(file.read_at(end - 3, 100).unwrap(), whole[whole.len() - 3..], "short at the end");
    assert_eq!(file.read_at(end, 100).unwrap(), "", "empty at the end");
    assert_eq!(file.read_at(end + 1_000, 100).unwrap(), "", "and past it");
    file.write_at(2, &["XY".into(), "Z".into()]).unwrap();
    assert_eq!(file.read_at(2, 3).unwrap(), "XYZ", "in the middle");
    assert_eq!(file.len().unwrap(), end);
    file.write_at(end, &[]).unwrap();
    file.write_at(end, &[Bytes::new()]).unwrap();
    assert_eq!(file.len().unwrap(), end);
}

pub fn files_may_have_holes_and_be_cut(world: &mut World) {
    let (disk, dir) = world.disk();
    let file = disk.open(&dir.join("a"), OpenMode::CreateNew).unwrap();
    file.write_at(10_000, &["end".into()]).unwrap();
    assert_eq!(file.len().unwrap(), 10_003);
    assert_eq!(file.read_at(0, 10_000).unwrap(), vec![0; 10_000]);
    file.truncate(10_001).unwrap();
    assert_eq!(file.read_at(9_999, 10).unwrap(), &b"\0e"[..]);
    file.truncate(10_004).unwrap();
    assert_eq!(
        file.read_at(9_999, 10).unwrap(),
        &b"\0e\0\0\0"[..],
        "what was cut does not come back"
    );
    file.truncate(0).unwrap();
    assert!(file.is_empty().unwrap());
}

pub fn sync_and_allocate_keep_the_content(world: &mut World) {
    let (disk, dir) = world.disk();
    let made = file(&disk, &dir.join("a"), "content");
    made.sync(SyncMode::Data).unwrap();
    made.sync(SyncMode::All).unwrap();
    made.allocate(1 << 20).unwrap();
    assert_eq!(made.len().unwrap(), 7, "space, not length");
    made.write_at(7, &["!".into()]).unwrap();
    made.allocate(10).unwrap();
    assert_eq!(made.read_at(0, 100).unwrap(), "content!");
    made.sync(SyncMode::Data).unwrap();
    assert_eq!(text(&disk, &dir.join("a")), "content!");
    let read = disk.open(&dir.join("a"), OpenMode::Read).unwrap();
    read.sync(SyncMode::Data).unwrap();
}

pub fn read_only_handles_refuse_writes(world: &mut World) {
    let (disk, dir) = world.disk();
    file(&disk, &dir.join("a"), "content");
    let read = disk.open(&dir.join("a"), OpenMode::Read).unwrap();
    let refused = read.write_at(0, &["x".into()]).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(EBADF), "{refused}");
    assert!(read.truncate(0).is_err());
    assert!(read.allocate(100).is_err());
    assert_eq!(text(&disk, &dir.join("a")), "content");
}

pub fn rename_replaces_and_moves(world: &mut World) {
    let (disk, dir) = world.disk();
    let (a, b) = (dir.join("a"), dir.join("b"));
    let open = file(&disk, &a, "new");
    file(&disk, &b, "old");
    disk.rename(&a, &b).unwrap();
    assert!(!disk.exists(&a));
    assert_eq!(text(&disk, &b), "new");
    open.write_at(3, &["er".into()]).unwrap();
    assert_eq!(text(&disk, &b), "newer", "an open file keeps its handle");
    assert_eq!(kind(disk.rename(&a, &b)), ErrorKind::NotFound);
    assert_eq!(text(&disk, &b), "newer");
    disk.rename(&b, &b).unwrap();

    let (one, two) = (dir.join("one"), dir.join("two"));
    disk.create_dir_all(&one.join("deep")).unwrap();
    disk.create_dir_all(&two).unwrap();
    file(&disk, &one.join("x"), "x");
    assert_eq!(kind(disk.rename(&b, &one)), ErrorKind::IsADirectory, "a file onto a directory");
    assert_eq!(kind(disk.rename(&one, &b)), ErrorKind::NotADirectory, "a directory onto a file");
    assert_eq!(kind(disk.rename(&two, &one)), ErrorKind::DirectoryNotEmpty);
    disk.rename(&one, &two).unwrap();
    assert_eq!(names(&disk, &two), ["deep", "x"], "an empty directory is replaced");
    disk.rename(&two.join("x"), &dir.join("x")).unwrap();
    assert_eq!(names(&disk, &dir), ["b", "two", "x"]);
    assert_eq!(kind(disk.rename(&two, &two.join("deep/two"))), ErrorKind::InvalidInput);
    assert_eq!(kind(disk.rename(&b, &dir.join("none/b"))), ErrorKind::NotFound);
}

pub fn unlink_keeps_open_files(world: &mut World) {
    let (disk, dir) = world.disk();
    let path = dir.join("a");
    let open = file(&disk, &path, "still here");
    disk.unlink(&path).unwrap();
    assert!(!disk.exists(&path));
    assert_eq!(open.read_at(0, 100).unwrap(), "still here");
    file(&disk, &path, "another");
    assert_eq!(open.read_at(0, 100).unwrap(), "still here", "the name is another file's now");
    assert_eq!(kind(disk.unlink(&dir.join("none"))), ErrorKind::NotFound);
    disk.create_dir_all(&dir.join("d")).unwrap();
    assert_eq!(kind(disk.unlink(&dir.join("d"))), ErrorKind::IsADirectory);
}

pub fn directories_are_made_listed_and_removed(world: &mut World) {
    let (disk, dir) = world.disk();
    let deep = dir.join("one/two/three");
    disk.create_dir_all(&deep).unwrap();
    disk.create_dir_all(&deep).unwrap();
    file(&disk, &dir.join("one/b"), "12345");
    file(&disk, &dir.join("one/a"), "");
    file(&disk, &deep.join("x"), "x");
    let seen: Vec<(String, bool, u64)> = disk
        .list(&dir.join("one"))
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.is_dir, entry.len))
        .collect();
    let expected = [("a", false, 0), ("b", false, 5), ("two", true, 0)];
    assert_eq!(seen, expected.map(|(name, is_dir, len)| (name.to_owned(), is_dir, len)));
    assert_eq!(kind(disk.list(&dir.join("none"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.list(&dir.join("one/a"))), ErrorKind::NotADirectory);
    disk.remove_dir_all(&dir.join("one")).unwrap();
    assert_eq!(names(&disk, &dir), Vec::<String>::new());
    assert_eq!(kind(disk.remove_dir_all(&dir.join("one"))), ErrorKind::NotFound);
}

pub fn directories_are_synced(world: &mut World) {
    let (disk, dir) = world.disk();
    file(&disk, &dir.join("a"), "a");
    disk.sync_dir(&dir).unwrap();
    assert_eq!(kind(disk.sync_dir(&dir.join("none"))), ErrorKind::NotFound);
}

pub fn hard_links_share_content(world: &mut World) {
    let (disk, dir) = world.disk();
    let (a, b) = (dir.join("a"), dir.join("b"));
    let open = file(&disk, &a, "one");
    disk.hard_link(&a, &b).unwrap();
    open.write_at(3, &[" file".into()]).unwrap();
    assert_eq!(text(&disk, &b), "one file");
    disk.unlink(&a).unwrap();
    assert_eq!(text(&disk, &b), "one file");
    assert_eq!(kind(disk.hard_link(&a, &dir.join("c"))), ErrorKind::NotFound);
    file(&disk, &a, "other");
    assert_eq!(kind(disk.hard_link(&a, &b)), ErrorKind::AlreadyExists);
    disk.create_dir_all(&dir.join("d")).unwrap();
    assert_eq!(kind(disk.hard_link(&dir.join("d"), &dir.join("e"))), ErrorKind::PermissionDenied);
}

pub fn paths_through_files_are_errors(world: &mut World) {
    let (disk, dir) = world.disk();
    file(&disk, &dir.join("a"), "a");
    let below: PathBuf = dir.join("a/below");
    assert!(!disk.exists(&below));
    for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::CreateNew] {
        assert_eq!(kind(disk.open(&below, mode)), ErrorKind::NotADirectory, "{mode:?}");
    }
    assert_eq!(kind(disk.unlink(&below)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.create_dir_all(&below)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.create_dir_all(&dir.join("a"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.list(&below)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.remove_dir_all(&dir.join("a"))), ErrorKind::NotADirectory);
}

pub fn durable_files_replace_as_a_whole(world: &mut World) {
    let (disk, dir) = world.disk();
    let path = dir.join("state");
    for content in ["first", "second, longer", "3"] {
        write_file_durable(&*disk, &path, Bytes::from_static(content.as_bytes())).unwrap();
        assert_eq!(text(&disk, &path), content);
    }
    assert_eq!(names(&disk, &dir), ["state"], "nothing is left over");
    assert_eq!(kind(read_file(&*disk, &dir.join("none"))), ErrorKind::NotFound);
}

pub fn space_is_reported(world: &mut World) {
    let (disk, dir) = world.disk();
    let space = disk.space(&dir).unwrap();
    assert!(space.available > 0 && space.available <= space.total, "{space:?}");
    assert_eq!(kind(disk.space(&dir.join("none"))), ErrorKind::NotFound);
}

pub fn the_run_of_the_machine_has_a_name(world: &mut World) {
    let (disk, _) = world.disk();
    let name = disk.boot_id().unwrap();
    assert!(!name.is_empty() && name.trim() == name, "{name:?}");
    assert_eq!(disk.boot_id().unwrap(), name, "the same for as long as it runs");
}
