//! Services of a test's own, started by `scripts/services` from what is installed: for faults that
//! would hurt every test beside it.

use std::path::{Path, PathBuf};

use tokio::process::Command;

/// A RabbitMQ of one's own; killed, with all its files, when dropped.
pub struct PrivateRabbit {
    dir: PathBuf,
    url: String,
}

fn services() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = package.ancestors().map(|dir| dir.join("scripts/services"));
    found.into_iter().find(|script| script.exists()).expect("scripts/services")
}

impl PrivateRabbit {
    pub async fn start() -> Self {
        // A broker in another root (see scripts/rabbitmq4) sees only what lies below it.
        let root = std::env::var_os("ADJUTANT_RABBITMQ_ROOT");
        let tmp = root.map_or_else(std::env::temp_dir, |root| PathBuf::from(root).join("tmp"));
        let dir = tmp.join(format!("adjutant-rabbit-{}", uuid::Uuid::new_v4().simple()));
        let mut rabbit = Self { dir, url: String::new() };
        rabbit.url = rabbit.call(&["start", "rabbitmq"], &[]).await;
        rabbit
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// SIGSTOP to all its processes.
    pub async fn pause(&self) {
        self.call(&["pause"], &[]).await;
    }

    /// SIGCONT.
    pub async fn resume(&self) {
        self.call(&["resume"], &[]).await;
    }

    pub async fn ctl(&self, args: &[&str]) -> String {
        self.call(&["rabbitmqctl"], args).await
    }

    async fn call(&self, before: &[&str], after: &[&str]) -> String {
        let output = Command::new(services())
            .args(before)
            .arg(&self.dir)
            .args(after)
            .output()
            .await
            .expect("scripts/services runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/services {before:?} {after:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }
}

impl Drop for PrivateRabbit {
    fn drop(&mut self) {
        let mut kill = std::process::Command::new(services());
        let killed = kill.arg("kill").arg(&self.dir).status();
        if !killed.is_ok_and(|status| status.success()) {
            eprintln!("the broker in {} could not be killed", self.dir.display());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
