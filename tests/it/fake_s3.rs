//! An S3 service in memory, over real HTTP on loopback, that can be told to misbehave.

mod body;
mod faults;
mod state;

pub use faults::{Fault, Strict};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use tokio::net::TcpListener;

use body::collect;
use state::{Hook, State, Upload, Version, delete, page};

pub const BUCKET: &str = "recordings";
pub const ACCESS_KEY_ID: &str = "test-access-key";
pub const SECRET_ACCESS_KEY: &str = "test-secret-canary";

/// The running service; it ends with the test's runtime.
#[derive(Clone)]
pub struct FakeS3 {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

impl FakeS3 {
    pub async fn start() -> Self {
        Self::serve(State { encrypts: true, ..State::default() }).await
    }

    pub async fn start_versioned() -> Self {
        Self::serve(State { encrypts: true, versioned: true, ..State::default() }).await
    }

    /// A service that takes `x-amz-server-side-encryption` and forgets it.
    pub async fn start_unencrypted() -> Self {
        Self::serve(State::default()).await
    }

    /// A service that refuses what newer SDKs send.
    pub async fn start_strict(strict: Strict) -> Self {
        Self::serve(State { encrypts: true, strict: Some(strict), ..State::default() }).await
    }

    async fn serve(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self { state: Arc::new(Mutex::new(state)), address: listener.local_addr().unwrap() };
        let mut builder = S3ServiceBuilder::new(fake.clone());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let service = builder.build();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        fake
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next `times` requests of this operation go wrong.
    pub fn fail(&self, operation: &'static str, fault: Fault, times: u32) {
        self.state().faults.insert(operation, (fault, times));
    }

    /// Every request for which this names a fault goes wrong.
    pub fn set_hook(&self, hook: Option<Hook>) {
        self.state().hook = hook;
    }

    /// Every key with anything left under it: versions, delete markers, unfinished uploads.
    pub fn everything(&self) -> Vec<String> {
        let state = self.state();
        let mut all: Vec<String> = state
            .objects
            .iter()
            .flat_map(|(key, versions)| versions.iter().map(move |version| format!("{key}@{}", version.id)))
            .collect();
        all.extend(state.uploads.iter().map(|(id, upload)| format!("{}!{id}", upload.key)));
        all
    }

    pub fn requests(&self) -> Vec<&'static str> {
        self.state().requests.clone()
    }

    /// How many whole bodies came with `x-amz-checksum-sha256` and were kept.
    pub fn sha256_headers(&self) -> u32 {
        self.state().sha256_headers
    }

    pub fn body(&self, key: &str) -> Option<Bytes> {
        self.state().newest(key)?.body.clone()
    }

    pub fn begin_upload(&self, key: &str) {
        let mut state = self.state();
        let id = state.id();
        state.uploads.insert(id, Upload { key: key.to_owned(), ..Upload::default() });
    }

    /// Keeps only the first `length` bytes of the newest version: what a careless copy does.
    pub fn cut_by_hand(&self, key: &str, length: usize) {
        let mut state = self.state();
        if let Some(body) = state.objects.get_mut(key).and_then(|all| all.last_mut()).and_then(|v| v.body.as_mut()) {
            body.truncate(length);
        }
    }

    /// A bucket that was restored empty.
    pub fn empty_by_hand(&self) {
        self.state().objects.clear();
    }

    /// A delete without a version: what a lifecycle rule or a person at a console does.
    pub fn delete_by_hand(&self, key: &str) {
        delete(&mut self.state(), key, None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Notes the request and fails it where that has been asked for; answers the faults the operation itself plays.
    fn enter<T>(&self, operation: &'static str, req: &S3Request<T>) -> S3Result<Option<Fault>> {
        let mut state = self.state();
        state.requests.push(operation);
        if let Some(refusal) = state.strict.and_then(|strict| strict.refusal(&req.headers)) {
            return Err(refusal);
        }
        let number = state.requests.len();
        let hooked = state.hook.and_then(|hook| hook(operation, number));
        let fault = match (hooked, state.faults.get_mut(operation)) {
            (Some(fault), _) => fault,
            (None, Some((fault, times))) if *times > 0 => {
                *times -= 1;
                *fault
            }
            _ => return Ok(None),
        };
        fault.refusal().map_or(Ok(Some(fault)), Err)
    }
}

fn known(bucket: &str) -> S3Result<()> {
    if bucket == BUCKET { Ok(()) } else { Err(S3ErrorCode::NoSuchBucket.into()) }
}

fn after_commit<T>(fault: Option<Fault>, answer: T) -> S3Result<S3Response<T>> {
    if fault == Some(Fault::FailAfterCommit) {
        return Err(S3ErrorCode::InternalError.into());
    }
    Ok(S3Response::new(answer))
}

fn now() -> LastModified {
    SystemTime::now().into()
}

impl FakeS3 {
    /// Keeps a body that has arrived; returns its version and the encryption that is confirmed.
    fn keep(
        &self,
        input: PutObjectInput,
        body: Bytes,
        fault: Option<Fault>,
    ) -> (Option<String>, Option<ServerSideEncryption>) {
        let mut state = self.state();
        let id = state.id();
        let version = Version { id, body: Some(body), content_type: input.content_type, metadata: input.metadata };
        let encrypted = input.server_side_encryption.filter(|_| state.encrypts);
        let id = if fault == Some(Fault::Lie) { version.id } else { state.store(input.key, version) };
        (state.versioned.then_some(id), encrypted)
    }
}

#[async_trait::async_trait]
impl S3 for FakeS3 {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let fault = self.enter("put", &req)?;
        let mut input = req.input;
        known(&input.bucket)?;
        let mut body = collect(input.body.take(), input.content_md5.as_deref(), fault).await?;
        if fault == Some(Fault::Halve) {
            body.truncate(body.len() / 2);
        }
        self.state().sha256_headers += u32::from(input.checksum_sha256.is_some());
        let (version_id, encrypted) = self.keep(input, body, fault);
        Fault::linger(fault).await;
        after_commit(fault, PutObjectOutput { version_id, server_side_encryption: encrypted, ..Default::default() })
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let fault = self.enter("get", &req)?;
        known(&req.input.bucket)?;
        let newest = self.state().newest(&req.input.key).cloned();
        let Some(Version { body: Some(mut body), content_type, metadata, .. }) = newest else {
            return Err(S3ErrorCode::NoSuchKey.into());
        };
        match fault {
            Some(Fault::Truncated) => body.truncate(body.len() / 2),
            Some(Fault::Flipped) => {
                let mut bytes = body.to_vec();
                if let Some(byte) = bytes.last_mut() {
                    *byte ^= 1;
                }
                body = bytes.into();
            }
            _ => {}
        }
        Fault::linger(fault).await;
        let length = body.len() as i64;
        let half = body.slice(..body.len() / 2);
        let blob = if fault == Some(Fault::ResetMidBody) {
            let parts = [Ok(half), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))];
            StreamingBlob::wrap(futures::stream::iter(parts))
        } else {
            StreamingBlob::wrap(futures::stream::iter([Ok::<_, std::io::Error>(body)]))
        };
        Ok(S3Response::new(GetObjectOutput {
            body: Some(blob),
            content_length: Some(length),
            content_type,
            metadata,
            ..Default::default()
        }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.enter("head", &req)?;
        known(&req.input.bucket)?;
        let state = self.state();
        let Some(version) = state.newest(&req.input.key) else { return Err(S3ErrorCode::NoSuchKey.into()) };
        Ok(S3Response::new(HeadObjectOutput {
            content_length: version.body.as_ref().map(|body| body.len() as i64),
            content_type: version.content_type.clone(),
            metadata: version.metadata.clone(),
            version_id: state.versioned.then(|| version.id.clone()),
            ..Default::default()
        }))
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.enter("head_bucket", &req)?;
        known(&req.input.bucket)?;
        Ok(S3Response::new(HeadBucketOutput::default()))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let fault = self.enter("delete", &req)?;
        known(&req.input.bucket)?;
        if fault != Some(Fault::Lie) {
            delete(&mut self.state(), &req.input.key, req.input.version_id.as_deref());
        }
        after_commit(fault, DeleteObjectOutput::default())
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let fault = self.enter("list", &req)?;
        let input = req.input;
        known(&input.bucket)?;
        let state = self.state();
        let prefix = input.prefix.unwrap_or_default();
        let all: Vec<Object> = state
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix) && fault != Some(Fault::Stale))
            .filter_map(|(key, _)| Some((key, state.newest(key)?)))
            .map(|(key, version)| Object {
                key: Some(key.clone()),
                size: version.body.as_ref().map(|body| body.len() as i64),
                last_modified: Some(now()),
                ..Default::default()
            })
            .collect();
        let after = input.continuation_token.or(input.start_after);
        let (contents, mut next) = page(&all, after.as_deref(), |object| object.key.clone().unwrap_or_default());
        if fault == Some(Fault::Circle) {
            next = Some("same".to_owned());
        }
        Ok(S3Response::new(ListObjectsV2Output {
            contents: Some(contents),
            is_truncated: Some(next.is_some()),
            next_continuation_token: next,
            ..Default::default()
        }))
    }

    async fn list_object_versions(
        &self,
        req: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let fault = self.enter("versions", &req)?;
        let input = req.input;
        known(&input.bucket)?;
        let state = self.state();
        let prefix = input.prefix.unwrap_or_default();
        let shown = |key: &str| key.starts_with(&prefix) && fault != Some(Fault::Stale);
        let all: Vec<(String, Version, bool)> = state
            .objects
            .iter()
            .filter(|(key, _)| shown(key))
            .flat_map(|(key, versions)| {
                let newest = versions.last().map(|version| version.id.clone()).unwrap_or_default();
                versions.iter().map(move |version| (key.clone(), version.clone(), version.id == newest))
            })
            .collect();
        let place = |key: &str, id: &str| format!("{key}\u{1}{id}");
        let after = input.key_marker.map(|key| place(&key, input.version_id_marker.as_deref().unwrap_or("~")));
        let (mut listed, next) = page(&all, after.as_deref(), |(key, version, _)| place(key, &version.id));
        let mut next = next.and_then(|next| next.split_once('\u{1}').map(|(a, b)| (a.to_owned(), b.to_owned())));
        if fault == Some(Fault::Circle) {
            next = Some(("same".to_owned(), "same".to_owned()));
        }
        let mut answer = ListObjectVersionsOutput { is_truncated: Some(next.is_some()), ..Default::default() };
        (answer.next_key_marker, answer.next_version_id_marker) = next.unzip();
        for (key, version, is_latest) in listed.drain(..) {
            let (key, version_id, is_latest) = (Some(key), Some(version.id), Some(is_latest));
            let last_modified = Some(now());
            if let Some(body) = version.body {
                let size = Some(body.len() as i64);
                let entry = ObjectVersion { key, version_id, is_latest, last_modified, size, ..Default::default() };
                answer.versions.get_or_insert_default().push(entry);
            } else {
                let entry = DeleteMarkerEntry { key, version_id, is_latest, last_modified, owner: None };
                answer.delete_markers.get_or_insert_default().push(entry);
            }
        }
        Ok(S3Response::new(answer))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.enter("create_upload", &req)?;
        let input = req.input;
        known(&input.bucket)?;
        let mut state = self.state();
        let id = state.id();
        let upload = Upload {
            key: input.key,
            parts: BTreeMap::new(),
            content_type: input.content_type,
            metadata: input.metadata,
        };
        state.uploads.insert(id.clone(), upload);
        Ok(S3Response::new(CreateMultipartUploadOutput { upload_id: Some(id), ..Default::default() }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let fault = self.enter("part", &req)?;
        let input = req.input;
        let body = collect(input.body, input.content_md5.as_deref(), fault).await?;
        let mut state = self.state();
        let upload = state.uploads.get_mut(&input.upload_id).ok_or_else(|| S3Error::new(S3ErrorCode::NoSuchUpload))?;
        upload.parts.insert(input.part_number, body);
        let e_tag = Some(ETag::Strong(format!("part-{}", input.part_number)));
        after_commit(fault, UploadPartOutput { e_tag, ..Default::default() })
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let fault = self.enter("complete", &req)?;
        let mut state = self.state();
        let named = req.input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let upload =
            state.uploads.remove(&req.input.upload_id).ok_or_else(|| S3Error::new(S3ErrorCode::NoSuchUpload))?;
        let tags: Vec<_> = named.iter().map(|part| part.e_tag.clone().map(|tag| tag.value().to_owned())).collect();
        let wanted: Vec<_> = upload.parts.keys().map(|number| Some(format!("part-{number}"))).collect();
        if tags != wanted {
            return Err(S3ErrorCode::InvalidPart.into());
        }
        let body: Vec<Bytes> = upload.parts.into_values().collect();
        let id = state.id();
        let version = Version {
            id,
            body: Some(Bytes::from(body.concat())),
            content_type: upload.content_type,
            metadata: upload.metadata,
        };
        let id = state.store(upload.key, version);
        let version_id = state.versioned.then_some(id);
        after_commit(fault, CompleteMultipartUploadOutput { version_id, ..Default::default() })
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.enter("abort", &req)?;
        match self.state().uploads.remove(&req.input.upload_id) {
            Some(_) => Ok(S3Response::new(AbortMultipartUploadOutput::default())),
            None => Err(S3ErrorCode::NoSuchUpload.into()),
        }
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        self.enter("uploads", &req)?;
        known(&req.input.bucket)?;
        let prefix = req.input.prefix.unwrap_or_default();
        let uploads = self
            .state()
            .uploads
            .iter()
            .filter(|(_, upload)| upload.key.starts_with(&prefix))
            .map(|(id, upload)| MultipartUpload {
                key: Some(upload.key.clone()),
                upload_id: Some(id.clone()),
                initiated: Some(now()),
                ..Default::default()
            })
            .collect();
        Ok(S3Response::new(ListMultipartUploadsOutput { uploads: Some(uploads), ..Default::default() }))
    }
}
