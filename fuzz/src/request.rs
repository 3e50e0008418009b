//! What containerd sends.
use containerd_shim::Flags;
use containerd_shim_protos::api;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::sandbox_api;
use husk_request::cri::SandboxConfig;
use husk_request::task;
use oci_spec::runtime::Process;

/// What `start` reads from its standard input.
pub fn bootstrap(data: &[u8]) {
    let flags = Flags {
        id: "pod".to_owned(),
        namespace: "k8s.io".to_owned(),
        address: "/run/containerd/containerd.sock".to_owned(),
        ..Flags::default()
    };
    if let Ok(opts) = husk_request::bootstrap::start_opts(&flags, data) {
        // Whatever it reads, it is this shim's.
        assert_eq!((&*opts.id, &*opts.namespace), ("pod", "k8s.io"));
        assert!(!opts.address.is_empty());
    }
    let _ = husk_request::bootstrap::legacy_options(data);
}

/// A request on the shim's socket: a frame of ttrpc, and in it the message of a method.
pub fn request(data: &[u8]) {
    if let Some((header, body)) = data.split_at_checked(ttrpc::proto::MESSAGE_HEADER_LENGTH) {
        let header = ttrpc::proto::MessageHeader::from(header);
        if header.length as usize <= body.len()
            && let Ok(request) = ttrpc::proto::Request::parse_from_bytes(body)
        {
            method(&request.method, &request.payload);
            return;
        }
    }
    // Not only what a client's library would send.
    if let Some((which, payload)) = data.split_first() {
        let names = [
            "Create",
            "Exec",
            "Kill",
            "Update",
            "ResizePty",
            "CreateSandbox",
        ];
        method(names[usize::from(*which) % names.len()], payload);
    }
}

fn method(name: &str, payload: &[u8]) {
    match name {
        "Create" => {
            let _ = api::CreateTaskRequest::parse_from_bytes(payload);
        }
        "Exec" => {
            if let Ok(request) = api::ExecProcessRequest::parse_from_bytes(payload) {
                exec(&request.spec.value);
            }
            // The interesting part is inside: as it is, too.
            exec(payload);
        }
        "Kill" => {
            if let Ok(request) = api::KillRequest::parse_from_bytes(payload)
                && let Ok(signal) = task::signal(&request)
            {
                assert!(signal >= 0);
            }
        }
        "Update" => {
            let resources = api::UpdateTaskRequest::parse_from_bytes(payload)
                .ok()
                .and_then(|request| task::update_resources(request).ok());
            for json in [resources.as_deref().unwrap_or_default(), payload] {
                if let Ok(resources) = task::resources("app", json) {
                    let written =
                        serde_json::to_vec(&resources).expect("what was read can be written");
                    let again = task::resources("app", &written).expect("and read again");
                    assert_eq!(again, resources);
                }
            }
        }
        "CreateSandbox" => {
            if let Ok(request) = sandbox_api::CreateSandboxRequest::parse_from_bytes(payload) {
                let _ = SandboxConfig::decode(request.options.as_ref());
            }
            let _ = SandboxConfig::decode(Some(&any(payload)));
        }
        _ => {}
    }
}

fn exec(json: &[u8]) {
    husk_sandbox::fuzzing::process(json);
    if let Ok(process) = serde_json::from_slice::<Process>(json) {
        // It goes to the zygote as JSON.
        let written = serde_json::to_vec(&process).expect("what was read can be written");
        let again: Process = serde_json::from_slice(&written).expect("and read again");
        assert_eq!(again, process);
    }
}

fn any(value: &[u8]) -> containerd_shim_protos::protobuf::well_known_types::any::Any {
    containerd_shim_protos::protobuf::well_known_types::any::Any {
        type_url: "runtime.v1.PodSandboxConfig".to_owned(),
        value: value.to_vec(),
        ..Default::default()
    }
}
