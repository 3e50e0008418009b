//! What happened, as containerd is told (contract 33).
use containerd_shim_protos::events::task as events;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::topics;
use containerd_shim_protos::types::mount::Mount as ProtoMount;
use log::debug;

use super::Pod;
use super::state::Published;
use crate::service::timestamp;

impl Pod {
    /// Queues the event; they reach containerd in this order (contract 37).
    pub(super) fn publish(&self, event: Published) {
        debug!("{event:?}");
        let publisher = &self.publisher;
        match event {
            Published::Created { container, pid } => self.publish_created(container, pid),
            Published::Started { container, pid } => publisher.publish(
                topics::TASK_START_EVENT_TOPIC,
                &events::TaskStart {
                    container_id: container,
                    pid,
                    ..Default::default()
                },
            ),
            Published::ExecAdded(process) => publisher.publish(
                topics::TASK_EXEC_ADDED_EVENT_TOPIC,
                &events::TaskExecAdded {
                    container_id: process.container,
                    exec_id: process.exec.unwrap_or_default(),
                    ..Default::default()
                },
            ),
            Published::ExecStarted { process, pid } => publisher.publish(
                topics::TASK_EXEC_STARTED_EVENT_TOPIC,
                &events::TaskExecStarted {
                    container_id: process.container,
                    exec_id: process.exec.unwrap_or_default(),
                    pid,
                    ..Default::default()
                },
            ),
            Published::Exited { process, pid, exit } => publisher.publish(
                topics::TASK_EXIT_EVENT_TOPIC,
                &events::TaskExit {
                    // Of init the id is the container's (contract 33).
                    id: process.exec.unwrap_or_else(|| process.container.clone()),
                    container_id: process.container,
                    pid,
                    exit_status: exit.code,
                    exited_at: MessageField::some(timestamp(exit.at_ms)),
                    ..Default::default()
                },
            ),
            Published::Deleted {
                container,
                pid,
                exit,
            } => publisher.publish(
                topics::TASK_DELETE_EVENT_TOPIC,
                &events::TaskDelete {
                    container_id: container,
                    pid,
                    exit_status: exit.code,
                    exited_at: MessageField::some(timestamp(exit.at_ms)),
                    ..Default::default()
                },
            ),
            Published::Paused(container) => publisher.publish(
                topics::TASK_PAUSED_EVENT_TOPIC,
                &events::TaskPaused {
                    container_id: container,
                    ..Default::default()
                },
            ),
            Published::Resumed(container) => publisher.publish(
                topics::TASK_RESUMED_EVENT_TOPIC,
                &events::TaskResumed {
                    container_id: container,
                    ..Default::default()
                },
            ),
            Published::OutOfMemory(container) => publisher.publish(
                topics::TASK_OOM_EVENT_TOPIC,
                &events::TaskOOM {
                    container_id: container,
                    ..Default::default()
                },
            ),
        }
    }

    fn publish_created(&self, id: String, pid: u32) {
        let Some(container) = self.container(&id) else {
            return;
        };
        let stdio = container.init.io.stdio();
        let io = events::TaskIO {
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            terminal: stdio.terminal,
            ..Default::default()
        };
        let mounts = container.mounts.iter().map(|mount| ProtoMount {
            type_: mount.kind.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
            ..Default::default()
        });
        self.publisher.publish(
            topics::TASK_CREATE_EVENT_TOPIC,
            &events::TaskCreate {
                container_id: id,
                bundle: container.bundle.display().to_string(),
                rootfs: mounts.collect(),
                io: MessageField::some(io),
                pid,
                ..Default::default()
            },
        );
    }
}
