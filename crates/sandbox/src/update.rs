//! Changes a container's limits.
use crate::cgroup::Cgroup;
use crate::error::JobError;
use crate::job::{Done, Update};

/// Runs in a builder: systemd may take its time to answer.
pub(crate) fn update(job: &Update) -> Result<Done, JobError> {
    let path = Some(job.cgroups_path.as_str()).filter(|path| !path.is_empty());
    Cgroup::named(job.driver, path, &job.id)?.update(job.driver, &job.resources)?;
    Ok(Done::default())
}
