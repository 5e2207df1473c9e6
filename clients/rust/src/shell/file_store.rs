//! A store in one JSON file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::core::{MessageStore, Saved, StoreError, Transaction};

/// Keeps what a device holds in one file, replaced whole by an atomic rename: what is read back is what one
/// transaction left, at any instant of a crash.
///
/// A commit writes everything and waits for the disk, on the calling thread. That suits one device with hundreds of
/// messages; a fleet in one process takes [`crate::MemoryStore`].
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    saved: Saved,
}

impl FileStore {
    /// Opens the file, or begins with nothing if there is none. Nobody else may use it meanwhile.
    ///
    /// # Errors
    /// If the file cannot be read, or is not one that this store wrote.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<FileStore> {
        let path = path.into();
        let saved = match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Saved::default(),
            Err(error) => return Err(error),
        };
        Ok(FileStore { path, saved })
    }

    fn write(&self, saved: &Saved) -> io::Result<()> {
        let json = serde_json::to_vec(saved)?;
        let beside = self.path.with_extension("tmp");
        let mut file = create_private(&beside)?;
        file.write_all(&json)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // Without this the rename itself may be lost, and an older state would come back.
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// The file holds the device's secret.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path)
}

impl MessageStore for FileStore {
    fn saved(&self) -> &Saved {
        &self.saved
    }

    fn commit(&mut self, transaction: Transaction) -> Result<(), StoreError> {
        let mut next = self.saved.clone();
        next.apply(transaction);
        self.write(&next).map_err(|error| StoreError(Box::new(error)))?;
        self.saved = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Identity, Message, Priority};
    use crate::ids::{AppId, Cursor, DeviceId, MessageId, Secret, Session, Tag};

    fn message(body: &str) -> Message {
        let expires_at = Some("2030-01-01T00:00:00.000Z".parse().unwrap());
        Message { tag: Tag::new(7), priority: Priority::High, expires_at, body: body.into() }
    }

    #[test]
    fn what_was_committed_is_read_back_to_the_byte() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.json");
        let mut store = FileStore::open(&path).unwrap();
        let identity = Identity {
            secret: Secret::new([9; 32]),
            registered: Some((AppId::new(1), DeviceId::new(2))),
            session: Some(Session::parse("s").unwrap()),
        };
        store.commit(Transaction::Begin { identity: Some(identity), cursor: None }).unwrap();
        let body = r#"{ "b" : 1.50,"a":"\u00e4" }"#;
        let cursor = Cursor::parse("c1").unwrap();
        let stored = vec![(MessageId::new(1), message(body)), (MessageId::new(2), message("null"))];
        store.commit(Transaction::Answer { store: stored, remove: vec![], cursor }).unwrap();

        let again = FileStore::open(&path).unwrap();
        assert_eq!(again.saved(), store.saved());
        assert_eq!(&*again.saved().messages[&MessageId::new(1)].body, body);
    }

    #[test]
    fn a_commit_that_cannot_be_written_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing").join("device.json");
        let mut store = FileStore::open(&path).unwrap();
        assert!(store.commit(Transaction::Cursor(Cursor::parse("c1").unwrap())).is_err());
        assert_eq!(store.saved(), &Saved::default());
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.json");
        fs::write(&path, b"[1, 2").unwrap();
        assert!(FileStore::open(&path).is_err());
    }
}
