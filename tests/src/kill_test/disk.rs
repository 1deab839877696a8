//! A small disk for one server: a file system in memory, in a mount namespace of its own.
//!
//! A process that does nothing holds the namespace, so that the server on it can be killed and started again. That
//! needs no privilege where the system lets users have namespaces; [`SmallDisk::possible`] tells.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// File that takes up what is free.
const FILLER: &str = "filler";
/// Bytes written at a time.
const BLOCK: usize = 64 << 10;

/// One such disk; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    holder: Child,
    at: PathBuf,
}

/// Namespaces of a user's own, or only of mounts for root.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    let root = fs::metadata("/proc/self").is_ok_and(|me| {
        use std::os::unix::fs::MetadataExt;
        me.uid() == 0
    });
    command.arg(if root { "-m" } else { "-rm" });
    command
}

impl SmallDisk {
    /// Why there can be none on this machine, if so.
    pub fn possible() -> Result<(), String> {
        let tried =
            unshare().args(["mount", "-t", "tmpfs", "-o", "size=1m", "none", "/tmp"]).output();
        match tried {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("unshare: {error}")),
        }
    }

    /// A disk of so many bytes at `at`, which is made.
    ///
    /// # Errors
    /// When the system does not permit it.
    #[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
    pub fn mount(at: &Path, bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let script = format!(
            "mount -t tmpfs -o size={bytes} none '{}' && echo mounted && exec sleep 86400",
            at.display()
        );
        let mut holder = unshare()
            .args(["sh", "-c", &script])
            .stdout(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()?;
        let mut said = [0; 8];
        let mounted = holder.stdout.as_mut().map(|out| out.read_exact(&mut said));
        if !matches!(mounted, Some(Ok(()))) {
            let _ = holder.kill();
            let _ = holder.wait();
            return Err(io::Error::other("no file system could be mounted"));
        }
        Ok(Self { holder, at: at.to_owned() })
    }

    /// A command that runs `program` in `dir`, with this disk where it is mounted.
    pub fn command(&self, dir: &Path, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        let user = fs::read_link(format!("/proc/{}/ns/user", self.holder.id())).ok()
            != fs::read_link("/proc/self/ns/user").ok();
        if user {
            command.args(["-U", "--preserve-credentials"]);
        }
        command.args(["-m", "-t", &self.holder.id().to_string()]);
        // The folder must be looked up in there, or what is mounted below it would not be seen.
        command.args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(dir).arg(program);
        command
    }

    /// The path under which this process sees a file below the disk.
    pub fn seen_from_outside(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn filler(&self) -> PathBuf {
        self.seen_from_outside(&self.at.join(FILLER))
    }

    /// Takes up all that is free; gives how many bytes that was.
    ///
    /// # Errors
    /// When the filler cannot be written for another reason than that the disk is full.
    #[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
    pub fn fill(&self) -> io::Result<u64> {
        let mut file = fs::File::create(self.filler())?;
        let mut written = 0;
        // Ever smaller, until not a byte is left.
        let mut block = BLOCK;
        while block > 0 {
            match file.write(&vec![0; block]) {
                Ok(0) => block /= 2,
                Ok(bytes) => written += bytes as u64,
                Err(error) if error.kind() == io::ErrorKind::StorageFull => block /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Gives it back.
    #[expect(clippy::disallowed_methods, reason = "a test harness lives outside the runtime")]
    pub fn free(&self) {
        let _ = fs::remove_file(self.filler());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
