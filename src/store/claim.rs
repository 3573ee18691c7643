//! The exclusive right to run jobs on a database file. One process has it at a time, independent of its data directory.

use std::fs::{File, TryLockError};

use super::schema::{beside, open_lock};
use super::{Store, StoreError};

/// The right to run jobs on a database, released on drop. On PostgreSQL every worker has it.
#[derive(Debug)]
pub struct Claim {
    _file: Option<File>,
}

impl Store {
    /// Acquires the right to run jobs on this database.
    ///
    /// # Errors
    /// [`StoreError::Claimed`] if another process has it.
    pub fn claim(&self) -> Result<Claim, StoreError> {
        let Some(file) = &self.file else { return Ok(Claim { _file: None }) };
        let lock = beside(file, "-workers");
        let opened = open_lock(&lock)?;
        match opened.try_lock() {
            Ok(()) => Ok(Claim { _file: Some(opened) }),
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::Claimed { file: file.display().to_string(), lock: lock.display().to_string() })
            }
            Err(TryLockError::Error(err)) => Err(StoreError::Database(sqlx::Error::Io(err))),
        }
    }
}
