//! A progress bar for every stage; nothing where standard error is no terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::load::Stages;

/// The bars.
pub(super) struct StageBars {
    accepted: ProgressBar,
    executed: ProgressBar,
    visible: ProgressBar,
}

impl StageBars {
    pub(super) fn new(commands: u64) -> Self {
        let bars = MultiProgress::new();
        let bar = |what: &'static str| {
            let bar = bars.add(ProgressBar::new(commands));
            bar.set_style(style());
            bar.set_prefix(what);
            bar
        };
        Self {
            accepted: bar("commands accepted"),
            executed: bar("commands executed"),
            visible: bar("events visible"),
        }
    }

    pub(super) fn show(&self, stages: &Stages) {
        self.accepted.set_position(stages.accepted);
        self.executed.set_position(stages.executed);
        // How many events there will be is not known before the last command is executed.
        if stages.accepted > 0 && stages.executed >= stages.accepted {
            self.visible.set_length(stages.events);
        }
        self.visible.set_position(stages.visible);
    }

    pub(super) fn finish(&self) {
        for bar in [&self.accepted, &self.executed, &self.visible] {
            bar.abandon();
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix:>18} {bar:40} {human_pos:>9}/{human_len:<9} {per_sec}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
