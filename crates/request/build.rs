//! Generates the CRI messages from `proto/`, without protoc.

fn main() {
    println!("cargo::rerun-if-changed=proto/cri.proto");
    protobuf_codegen::Codegen::new()
        .pure()
        .cargo_out_dir("proto")
        .include("proto")
        .input("proto/cri.proto")
        .run_from_script();
}
