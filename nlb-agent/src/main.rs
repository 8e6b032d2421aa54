//! The program: subcommands on the outside, the control plane inside.

use nlb_agent::args::CheckArgs;
use nlb_agent::cli::{Features, Hooks};
use nlb_agent::offline::Pinned;
use nlb_agent::{bpf, check, cli, host, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(&Hooks {
        run: serve::run,
        check: checked,
        offline: Box::new(Pinned),
        detach: |pin_path| Ok(bpf::detach::detach(pin_path)?),
        version_features: features,
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the hook hands its arguments over")]
fn checked(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    Ok(check::asked(&args, &mut out, &mut err).into())
}

fn features() -> Features {
    let Ok(kernel) = host::kernel::Kernel::read() else { return Features::default() };
    let found = kernel.features;
    Features { tcx: Some(found.tcx), xdp_frags: Some(found.xdp_frags), jit: Some(found.jit) }
}
