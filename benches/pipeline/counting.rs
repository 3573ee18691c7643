//! An object store that counts what is written through it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aftercall::artifacts::{Body, CallPrefix, Entry, Erased, ObjectError, ObjectHead, ObjectStore, StoreHealth};
use aftercall::domain::{Artifact, ArtifactKey};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;

/// Writes and bytes of one artifact name.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    pub objects: u64,
    pub bytes: u64,
}

/// Passes everything on.
#[derive(Debug, Clone)]
pub struct Counting {
    inner: Arc<dyn ObjectStore>,
    written: Arc<Mutex<BTreeMap<String, Written>>>,
}

impl Counting {
    pub fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, written: Arc::default() }
    }

    /// What has been written so far, by artifact name.
    pub fn written(&self) -> BTreeMap<String, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl ObjectStore for Counting {
    fn place(&self) -> String {
        self.inner.place()
    }

    async fn put(&self, artifact: &Artifact, body: Body) -> Result<(), ObjectError> {
        self.inner.put(artifact, body).await?;
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let written = written.entry(artifact.name.clone()).or_default();
        written.objects += 1;
        written.bytes += artifact.size_bytes;
        Ok(())
    }

    async fn get(&self, artifact: &Artifact) -> Result<Bytes, ObjectError> {
        self.inner.get(artifact).await
    }

    async fn get_to_file(&self, artifact: &Artifact, dest: &Path) -> Result<(), ObjectError> {
        self.inner.get_to_file(artifact, dest).await
    }

    async fn head(&self, key: &ArtifactKey) -> Result<Option<ObjectHead>, ObjectError> {
        self.inner.head(key).await
    }

    fn list_all(&self, after: Option<String>) -> BoxStream<'static, Result<Entry, ObjectError>> {
        self.inner.list_all(after)
    }

    async fn list_call(&self, call: &CallPrefix) -> Result<Vec<Entry>, ObjectError> {
        self.inner.list_call(call).await
    }

    async fn delete(&self, key: &ArtifactKey) -> Result<(), ObjectError> {
        self.inner.delete(key).await
    }

    async fn delete_prefix(&self, call: &CallPrefix, known: &[ArtifactKey]) -> Result<Erased, ObjectError> {
        self.inner.delete_prefix(call, known).await
    }

    async fn verify_empty(&self, call: &CallPrefix, known: &[ArtifactKey]) -> Result<(), ObjectError> {
        self.inner.verify_empty(call, known).await
    }

    async fn check(&self) -> Result<StoreHealth, ObjectError> {
        self.inner.check().await
    }

    async fn server_date(&self) -> Result<Option<Timestamp>, ObjectError> {
        self.inner.server_date().await
    }
}
