//! Scene 1: health checks find, for each of five ports, the one pod of five that serves it.

use anyhow::Result;
use serde_json::Value;

use super::claims::Claims;
use super::stage::{MAIN, PATIENCE, Stage, WEB, text};
use super::tables;

/// Waits for the checks to decide, and shows what they found.
pub(crate) fn show(stage: &Stage, claims: &Claims) -> Result<()> {
    claims.title("Five listeners on one VIP, five pods, each pod serves one port");
    let decided = || {
        stage.agent.wait_for(MAIN, "unhealthy", 20, PATIENCE)?;
        stage.agent.wait_for(MAIN, "healthy", 5, PATIENCE)
    };
    claims.becomes("five targets of the five-port Service are healthy, twenty unhealthy", decided)?;
    // Four listeners (two families, TCP and UDP) of five targets each.
    let others = || stage.agent.wait_for(WEB, "healthy", 20, PATIENCE);
    claims.becomes("every target of the dual-stack Service is healthy", others)?;
    let mut listeners = stage.listener_rows(MAIN)?;
    listeners.extend(stage.listener_rows(WEB)?);
    println!("{}", tables::listeners(&listeners));
    let rows = stage.agent.targets(MAIN)?;
    println!("{}", tables::targets(stage, &rows));
    check(stage, claims, &rows, &listeners)
}

fn check(stage: &Stage, claims: &Claims, rows: &[Value], listeners: &[Value]) -> Result<()> {
    let wrong = rows.iter().find(|row| (text(row, "state") == "healthy") != serves(stage, row));
    let seen = wrong.map(Value::to_string).unwrap_or_default();
    claims.claim("the healthy target of port 500N is podN, which alone serves it", wrong.is_none(), seen)?;
    let silent = rows
        .iter()
        .find(|row| text(row, "state") == "unhealthy" && !text(row, "reason").starts_with("Target."));
    let seen = silent.map(Value::to_string).unwrap_or_default();
    claims.claim("every unhealthy target has a reason", silent.is_none(), seen)?;
    let open = listeners.iter().find(|row| row["failOpen"] != false);
    let seen = open.map(Value::to_string).unwrap_or_default();
    claims.claim("no listener had to fail open", open.is_none(), seen)
}

/// Whether the pod behind this row serves the row's port: pod1 serves 5001, and so on.
fn serves(stage: &Stage, row: &Value) -> bool {
    let target = text(row, "target");
    let port = target.rsplit(':').next().unwrap_or_default();
    port.strip_prefix("500").map(|number| format!("pod{number}")) == Some(stage.pod_of(target))
}
