//! The database's own files are nobody else's to read.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// What SQLite keeps beside a database; it gives a new one the mode of the database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Makes the database's file where there is none, and closes it and what lies beside it to others.
///
/// # Errors
/// A file that others may read and that this user may not change.
pub(super) fn tighten(database: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(database) {
        Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
        // It is new, or opening it will say what is wrong with the place.
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
                    format!("others may read {}, and this user may not change that", path.display()),
                )
            })
        }
        _ => Ok(()),
    }
}
