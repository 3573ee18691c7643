//! Finds the processes that lock an SQLite file, as far as this machine shows them. SQLite locks are POSIX locks (its
//! documentation, "File Locking And Concurrency"), which Linux lists by process and file in /proc/locks.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;

use super::StoreError;

/// Primary result codes of SQLite for a conflict with another connection's lock.
const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;

/// Turns a lock conflict into [`StoreError::Locked`].
pub(super) fn named(err: sqlx::Error, database: &Path) -> StoreError {
    if is_busy(&err) { locked(database) } else { StoreError::Database(err) }
}

fn locked(database: &Path) -> StoreError {
    StoreError::Locked { path: database.display().to_string(), holder: holder(database) }
}

/// Whether the error is a lock conflict.
fn is_busy(err: &sqlx::Error) -> bool {
    let code = err.as_database_error().and_then(|err| err.code()?.parse::<i32>().ok());
    // The upper bits hold the extended code.
    code.is_some_and(|code| matches!(code & 0xff, SQLITE_BUSY | SQLITE_LOCKED))
}

/// The processes that hold a write lock on this database, as text.
fn holder(database: &Path) -> String {
    let beside = |suffix: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let files = [database.to_owned(), beside("-wal"), beside("-shm")];
    let inodes: Vec<u64> = files.iter().filter_map(|file| Some(std::fs::metadata(file).ok()?.ino())).collect();
    let table = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut holders: Vec<String> = Vec::new();
    for process in writers(&table, &inodes).into_iter().filter(|process| *process != std::process::id()) {
        let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        let name = name.trim();
        holders.push(if name.is_empty() {
            format!("process {process}")
        } else {
            format!("process {process} ({name})")
        });
    }
    if holders.is_empty() {
        "another process, which this process cannot identify".to_owned()
    } else {
        holders.join(", ")
    }
}

/// The processes that hold a write lock on one of these files, from a table such as /proc/locks (proc(5)): `1: POSIX
/// ADVISORY  WRITE 4711 08:01:131234 120 120`.
fn writers(table: &str, inodes: &[u64]) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, "WRITE", process, file, ..] = fields.as_slice() else { continue };
        let inode = file.rsplit(':').next().and_then(|inode| inode.parse().ok());
        if let (Some(inode), Ok(process)) = (inode, process.parse::<u32>())
            && inodes.contains(&inode)
            && process > 0
            && !found.contains(&process)
        {
            found.push(process);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_told_from_readers_waiters_and_other_files() {
        let table = "1: POSIX  ADVISORY  WRITE 11 08:01:500 120 120\n\
                     1: -> POSIX  ADVISORY  WRITE 12 08:01:500 120 120\n\
                     2: POSIX  ADVISORY  READ 13 08:01:501 123 123\n\
                     3: FLOCK  ADVISORY  WRITE 14 00:2d:501 0 EOF\n\
                     4: OFDLCK ADVISORY  WRITE -1 08:01:500 0 EOF\n\
                     5: POSIX  ADVISORY  WRITE 15 08:01:999 0 EOF\nnonsense\n";
        assert_eq!(writers(table, &[500, 501]), [11, 14]);
        assert!(writers("", &[500]).is_empty());
    }
}
