//! Clocks that jump: a small library that is preloaded into each process of the service, and a
//! file for each that says by how much its wall clock is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{error::ChaosError, processes};

const SOURCE: &str = include_str!("clock_shift.c");

/// The library, compiled for this run.
#[derive(Clone, Debug)]
pub(super) struct ClockLibrary {
    library: PathBuf,
}

impl ClockLibrary {
    /// Compiles it with the system's C compiler.
    pub(super) async fn compile(directory: &Path) -> Result<Self, ChaosError> {
        let source = directory.join("clock_shift.c");
        let library = directory.join("clock_shift.so");
        fs::write(&source, SOURCE).map_err(ChaosError::io(source.display().to_string()))?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).arg("-ldl");
        processes::run("cc, which compiles the library that shifts clocks", compiler, PATIENCE)
            .await?;
        Ok(Self { library })
    }

    /// The clock of a process that is to be started.
    pub(super) fn clock(&self, file: PathBuf) -> Result<Clock, ChaosError> {
        let clock = Clock { library: self.library.clone(), file };
        clock.shift(0)?;
        Ok(clock)
    }
}

const PATIENCE: Duration = Duration::from_mins(1);

/// The wall clock of one process.
#[derive(Debug)]
pub(super) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// The process will have this clock.
    pub(super) fn belongs_to(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("CHAOS_CLOCK_FILE", &self.file);
    }

    /// It is wrong by so many milliseconds from now on. The file is written in place: the process
    /// has it mapped.
    pub(super) fn shift(&self, millis: i64) -> Result<(), ChaosError> {
        use std::io::Write;
        let nanoseconds = millis.saturating_mul(1_000_000).to_ne_bytes();
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&self.file);
        file.and_then(|mut file| file.write_all(&nanoseconds))
            .map_err(ChaosError::io(self.file.display().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `date` says, in seconds since 1970, when its clock is wrong by so much.
    async fn date(library: &ClockLibrary, file: PathBuf, millis: i64) -> i64 {
        let clock = library.clock(file).unwrap();
        clock.shift(millis).unwrap();
        let mut date = Command::new("date");
        date.arg("+%s");
        clock.belongs_to(&mut date);
        processes::run("date", date, PATIENCE).await.unwrap().trim().parse().unwrap()
    }

    #[tokio::test]
    async fn the_clock_of_one_process_is_wrong_by_as_much_as_its_file_says() {
        let name = format!("bank-clock-{}", uuid::Uuid::new_v4().simple());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        let library = ClockLibrary::compile(&directory).await.unwrap();
        let truth = time::OffsetDateTime::now_utc().unix_timestamp();
        for hours in [0_i64, 2, -2] {
            let said = date(&library, directory.join("clock"), hours * 3_600_000).await;
            let off = said - truth - hours * 3_600;
            assert!((-30..30).contains(&off), "{hours} h: {off} s");
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
