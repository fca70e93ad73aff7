//! `/sync` and its jobs: read on both listeners, requested and cancelled on the admin listener.

use std::{fmt::Display, str::FromStr, sync::Arc};

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    http::{StatusCode, Uri, header},
    response::IntoResponse,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        envelope::{Envelope, Rejection, enveloped},
        explorer::Trimmed,
        extract,
        gateway::Gateway,
    },
    protocol::{
        Code, Failure,
        query::{self, Kind, Parameter, optional},
    },
    source::job::{JobSpec, SyncJob, SyncStatus},
};

const JOBS: &str = "/sync";
const JOB: &str = "/sync/{id}";

/// Members of a [`JobSpec`].
const SPEC: &[Parameter] =
    &[optional("mode", Kind::Text), optional("peer", Kind::Text), optional("verify", Kind::Text)];

/// `data` of `/sync`.
#[derive(Serialize, ToSchema)]
pub struct SyncData {
    /// State of the sync.
    status: SyncStatus,
    /// Jobs, newest first: those that aren't finished, and the last 100 that are.
    jobs: Vec<SyncJob>,
    /// Number of jobs.
    count: u64,
}

/// `data` of a requested job.
#[derive(Serialize)]
struct Requested {
    id: u64,
}

/// State of the sync, and its jobs
#[utoipa::path(get, path = "/sync", tag = "gateway",
    responses((status = 200, description = "The sync and its jobs", body = Envelope<SyncData>)))]
pub(super) async fn list_sync_jobs(
    State(gateway): State<Arc<Gateway>>,
    uri: Uri,
) -> Result<impl IntoResponse, Rejection> {
    extract::parameters(JOBS, &[], &uri)?;
    let status = gateway.source.sync_status().await?;
    let jobs = gateway.source.sync_jobs().await?;
    Ok(enveloped(SyncData { status, count: jobs.len() as u64, jobs }))
}

/// One job: its progress, and what each peer gave
#[utoipa::path(get, path = "/sync/{id}", tag = "gateway",
    params(("id" = u64, Path, description = "Number of the job")),
    responses((status = 200, description = "The job", body = Envelope<SyncJob>)))]
pub(super) async fn get_sync_job(
    State(gateway): State<Arc<Gateway>>,
    id: JobId,
    uri: Uri,
) -> Result<impl IntoResponse, Rejection> {
    extract::parameters(JOB, &[], &uri)?;
    Ok(enveloped(gateway.source.sync_job(job_id(id)?).await?))
}

/// Requests a job: 202, its number and its address, which is relative: before the path there may be a proxy's prefix.
pub(super) async fn request_sync(
    State(gateway): State<Arc<Gateway>>,
    request: Request,
) -> Result<impl IntoResponse, Rejection> {
    let (parts, body) = request.into_parts();
    extract::parameters(JOBS, &[], &parts.uri)?;
    let spec = job_spec(&extract::read_body(&parts.headers, body).await?)?;
    let id = gateway.source.request_sync(&spec).await?;
    // To a client a slash at the end is a part of the path.
    let jobs = parts.extensions.get().map_or("sync/".into(), |Trimmed(count)| "../".repeat(count - 1));
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, format!("{jobs}{id}"))], enveloped(Requested { id })))
}

/// Cancels a job: 202 and the job, which ends within about a second.
pub(super) async fn cancel_sync(
    State(gateway): State<Arc<Gateway>>,
    id: JobId,
    uri: Uri,
) -> Result<impl IntoResponse, Rejection> {
    extract::parameters(JOB, &[], &uri)?;
    let id = job_id(id)?;
    gateway.source.cancel_sync(id).await?;
    Ok((StatusCode::ACCEPTED, enveloped(gateway.source.sync_job(id).await?)))
}

type JobId = Result<Path<String>, PathRejection>;

fn job_id(id: JobId) -> Result<u64, Failure> {
    // A path segment that is not UTF-8 is no number either.
    extract::integer("id", id.as_ref().map_or("?", |Path(id)| id))
}

/// The job that a body describes. An empty body, `null` and members that are null mean the defaults.
fn job_spec(body: &[u8]) -> Result<JobSpec, Failure> {
    if body.is_empty() {
        return Ok(JobSpec::default());
    }
    let data = query::unique::from_slice(body)
        .map_err(|error| Failure::with_detail(Code::MalformedBody, error.to_string()))?;
    query::check(JOBS, SPEC, &data)?;
    let text = |name: &str| data[name].as_str();
    Ok(JobSpec {
        mode: text("mode").map(|mode| read("mode", mode)).transpose()?.unwrap_or_default(),
        peer: text("peer").map(str::to_owned),
        verify: text("verify").map(|level| read("verify", level)).transpose()?,
    })
}

fn read<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, Failure> {
    // The error quotes the text: a long one is cut.
    let word: String = text.chars().take(64).collect();
    word.parse().map_err(|error| Failure::with_detail(Code::InvalidParameter, format!("{name}: {error}")))
}
