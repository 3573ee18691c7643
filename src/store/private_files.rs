//! Restricts the database files to their owner.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Files that SQLite keeps beside a database. New ones get the mode of the database file.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Creates a missing database file. Restricts it and the files beside it to mode 0600.
///
/// # Errors
/// Others may read a file, and this user may not change its mode.
pub(super) fn tighten(database: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(database) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
        // The file is new, or opening it will report the problem.
        Ok(_) | Err(_) => return Ok(()),
    }
    close(database)?;
    for suffix in BESIDE {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        close(&PathBuf::from(name))?;
    }
    Ok(())
}

fn close(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.permissions().mode() & 0o077 != 0 => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|err| {
                io::Error::new(
                    err.kind(),
                    format!("other users may read {}, and this user may not change its mode", path.display()),
                )
            })
        }
        _ => Ok(()),
    }
}
