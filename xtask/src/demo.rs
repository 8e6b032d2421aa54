//! `cargo xtask demo`.

/// How to run it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave everything running, and print commands to try
    #[arg(long)]
    keep: bool,
}

pub(crate) fn demo(options: &Options) -> anyhow::Result<()> {
    anyhow::bail!("x {}", options.keep)
}
