//! nginx in a pod: it says who it is and whom it sees, and has a big file to download.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Lab, Pod, Process, download, wait_for_listener};

/// A web server of a pod.
pub struct Nginx {
    name: String,
    namespace: super::Namespace,
    addresses: [SocketAddr; 2],
    folder: PathBuf,
    process: Option<Process>,
}

impl Nginx {
    /// Starts a server on each of `ports` of the pod, over IPv4 and IPv6, and waits until it accepts connections.
    ///
    /// `GET /` answers `PODNAME CLIENT-ADDRESS CLIENT-PORT`, `GET /big` sends [`download::SIZE`] bytes, not too fast.
    pub fn start(lab: &Lab, pod: &Pod, ports: &[u16]) -> Result<Nginx> {
        let name = format!("nginx-{}-{}", pod.name, ports.first().context("a server needs a port")?);
        let folder = lab.folder().join(&name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // One for all servers of the lab.
        let big = lab.folder().join("big");
        if !big.exists() {
            std::fs::write(big, download::content()).context("cannot write the big file")?;
        }
        let text = configuration(&pod.name, ports, &folder);
        std::fs::write(folder.join("nginx.conf"), text).context("cannot write nginx.conf")?;
        let addresses = [pod.ipv4.into(), pod.ipv6.into()].map(|address| SocketAddr::new(address, ports[0]));
        let mut nginx = Nginx { name, namespace: pod.namespace.clone(), addresses, folder, process: None };
        nginx.resume()?;
        Ok(nginx)
    }

    /// Ends it at once: from now on the pod refuses connections.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Starts it again after [`Nginx::stop`].
    pub fn resume(&mut self) -> Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let mut command = self.namespace.command("nginx");
        command.arg("-c").arg(self.folder.join("nginx.conf")).arg("-e").arg(self.folder.join("error.log"));
        let process = Process::start(&mut command, &self.folder, &self.name)?;
        for address in self.addresses {
            wait_for_listener(&self.namespace, address).with_context(|| process.errors())?;
        }
        self.process = Some(process);
        Ok(())
    }
}

fn configuration(pod: &str, ports: &[u16], folder: &Path) -> String {
    let mut listen = String::new();
    for port in ports {
        // One backlog that holds a load test's burst: a full one looks like a lost packet.
        let _ = write!(listen, "listen {port} backlog=4096; listen [::]:{port} ipv6only=on backlog=4096; ");
    }
    let folder = folder.display();
    format!(
        "daemon off; master_process off; worker_processes 1; pid {folder}/pid;
events {{ worker_connections 8192; }}
http {{
    access_log off; default_type text/plain; sendfile on; keepalive_requests 1000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        {listen}
        location / {{ return 200 \"{pod} $remote_addr $remote_port\\n\"; }}
        location /big {{ root {folder}/..; limit_rate 4m; }}
    }}
}}
"
    )
}
