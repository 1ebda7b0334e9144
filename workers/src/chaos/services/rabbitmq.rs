//! A RabbitMQ node in a directory of its own: own name, own cookie, own epmd, so that it shares
//! nothing with a system's broker.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lapin::{Connection, ConnectionProperties};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::chaos::{
    error::ChaosError,
    ports::SomePorts,
    processes::{self, Owned},
};

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(90);

/// A node, and its processes while they run.
pub(crate) struct Rabbit {
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
    distribution: u16,
    epmd_port: u16,
    node: Mutex<Option<Owned>>,
    // Dropped last.
    epmd: Mutex<Option<Owned>>,
}

impl Rabbit {
    /// Makes a node in this directory, which must not exist, and starts it.
    pub(crate) async fn start(
        directory: PathBuf,
        ports: &mut SomePorts,
    ) -> Result<Self, ChaosError> {
        let broker = Self {
            programs: programs()?,
            directory,
            port: ports.take()?,
            distribution: ports.take()?,
            epmd_port: ports.take()?,
            node: Mutex::default(),
            epmd: Mutex::default(),
        };
        broker.initialise()?;
        broker.launch().await?;
        Ok(broker)
    }

    fn initialise(&self) -> Result<(), ChaosError> {
        let write = |name: &str, content: &str| {
            let file = self.directory.join(name);
            fs::write(&file, content).map_err(ChaosError::io(file.display().to_string()))
        };
        let logs = self.directory.join("logs");
        fs::create_dir_all(&logs).map_err(ChaosError::io(logs.display().to_string()))?;
        write("rabbitmq-env.conf", "")?;
        write("enabled_plugins", "[].\n")?;
        write("advanced.config", "[].\n")?;
        write("rabbitmq.conf", &format!("listeners.tcp.1 = 127.0.0.1:{}\n", self.port))?;
        // Started by us and not by RabbitMQ, which would leave it running for ever.
        let mut epmd = self.command(Path::new("epmd"));
        epmd.stdout(self.log("epmd")?).stderr(self.log("epmd")?);
        let epmd = Owned::start("epmd", &mut epmd)?;
        *self.epmd.lock().unwrap_or_else(PoisonError::into_inner) = Some(epmd);
        Ok(())
    }

    /// Starts the node; returns when it speaks AMQP.
    pub(crate) async fn launch(&self) -> Result<(), ChaosError> {
        let mut command = self.command(&self.programs.join("rabbitmq-server"));
        command.stdout(self.log("startup")?).stderr(self.log("startup")?);
        let node = Owned::start("RabbitMQ", &mut command)?;
        *self.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
        self.until_it_answers().await
    }

    /// Waits until it speaks AMQP.
    pub(crate) async fn until_it_answers(&self) -> Result<(), ChaosError> {
        processes::until("RabbitMQ answers", PATIENCE, async || {
            if !self.runs() {
                let words = format!("see {}", self.directory.join("logs").display());
                return Err(ChaosError::Program { what: "RabbitMQ".into(), words });
            }
            Ok(self.greets().await)
        })
        .await
    }

    /// Whether it answers our protocol header with a method frame.
    async fn greets(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
            stream.read_u8().await
        };
        matches!(tokio::time::timeout(Duration::from_secs(2), ask).await, Ok(Ok(1)))
    }

    /// Whether the node's process runs.
    pub(crate) fn runs(&self) -> bool {
        let mut node = self.node.lock().unwrap_or_else(PoisonError::into_inner);
        node.as_mut().is_some_and(|it| it.ended().is_none())
    }

    /// SIGKILL to all its processes.
    pub(crate) fn kill(&self) {
        if let Some(mut node) = self.node.lock().unwrap_or_else(PoisonError::into_inner).take() {
            node.kill();
        }
    }

    /// Runs `rabbitmqctl`.
    pub(crate) async fn control(&self, arguments: &[&str]) -> Result<String, ChaosError> {
        let mut command = self.command(&self.programs.join("rabbitmqctl"));
        command.args(arguments);
        let what = format!("rabbitmqctl {}", arguments.join(" "));
        processes::run(&what, command, PATIENCE).await
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The broker, past every proxy.
    pub(crate) fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address())
    }

    fn log(&self, name: &str) -> Result<fs::File, ChaosError> {
        let path = self.directory.join("logs").join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        file.map_err(ChaosError::io(path.display().to_string()))
    }

    /// A program with the node's surroundings and nothing of ours.
    fn command(&self, program: &Path) -> Command {
        let directory = &self.directory;
        let mut command = Command::new(program);
        command.env_clear().current_dir("/").env("LANG", "C.UTF-8").env("HOME", directory);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODENAME", format!("chaos{}@localhost", self.port))
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1}",
            );
        for (name, place) in [
            ("RABBITMQ_MNESIA_BASE", "mnesia"),
            ("RABBITMQ_LOG_BASE", "logs"),
            ("RABBITMQ_PID_FILE", "pid"),
            ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
        ] {
            command.env(name, directory.join(place));
        }
        command
    }
}

/// Connects within 5 s.
pub(crate) async fn connect(url: &str) -> Result<Connection, ChaosError> {
    let within = Duration::from_secs(5);
    let connecting = Connection::connect(url, ConnectionProperties::default());
    let connected = tokio::time::timeout(within, connecting).await;
    let slow = |_| ChaosError::TooSlow { what: "a connection to RabbitMQ".into(), within };
    Ok(connected.map_err(slow)??)
}

/// Not the wrapper on the path, if there is another: it insists on root or a user of its own.
fn programs() -> Result<PathBuf, ChaosError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = vec![PathBuf::from("/usr/lib/rabbitmq/bin")];
    folders.extend(std::env::split_paths(&path));
    let complete = |folder: &PathBuf| {
        ["rabbitmq-server", "rabbitmqctl"].iter().all(|program| folder.join(program).is_file())
    };
    folders.into_iter().find(complete).ok_or_else(|| {
        ChaosError::Missing(
            "no RabbitMQ is installed here: rabbitmq-server and rabbitmqctl were looked for in \
             /usr/lib/rabbitmq/bin and on the path (Debian: apt-get install rabbitmq-server)"
                .into(),
        )
    })
}
