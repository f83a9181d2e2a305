//! `redweir top`: where reads go and why, how far the replicas are behind, and what is wrong, once a second. In a terminal it
//! fills the screen; else it is plain text, one page after the other.

mod draw;
mod history;
mod overview;

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use super::explain::UsageError;
use super::http::fetch;
use super::status::render;
use crate::core::address::Address;
use history::History;
use overview::Overview;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// How long a key waits for being looked at.
const KEYS_EVERY: Duration = Duration::from_millis(100);

/// Shows it until `q` or Ctrl-C, or until nobody reads it.
pub(super) fn run(admin: &Address) -> anyhow::Result<()> {
    let Address::Tcp { host, port } = admin else { return Err(UsageError.into()) };
    let (host, port, asked) = (host.clone(), *port, admin.to_string());
    // Whoever answers at first is there; later it may come and go.
    let first = look(&host, port, &asked)?;
    if io::stdout().is_terminal() && io::stdin().is_terminal() {
        let (sender, looks) = mpsc::sync_channel(1);
        let address = asked.clone();
        thread::spawn(move || {
            loop {
                thread::sleep(EVERY);
                // A terminal that does not keep up is shown the next one.
                let told = sender.try_send(look(&host, port, &address));
                if matches!(told, Err(mpsc::TrySendError::Disconnected(_))) {
                    return;
                }
            }
        });
        let mut terminal = ratatui::try_init().context("cannot take over the terminal")?;
        let shown = show(&mut terminal, &asked, first, &looks);
        ratatui::restore();
        return shown;
    }
    let mut history = History::default();
    let mut next = Ok(first);
    loop {
        let page = match &next {
            Ok(overview) => {
                history.note(overview);
                plain(overview, &history)
            }
            Err(problem) => format!("{problem:#}\n"),
        };
        let mut out = io::stdout().lock();
        if let Err(error) = writeln!(out, "{page}").and_then(|()| out.flush()) {
            // Whoever looked on has seen enough.
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error.into()) };
        }
        drop(out);
        thread::sleep(EVERY);
        next = look(&host, port, &asked);
    }
}

fn look(host: &str, port: u16, admin: &str) -> anyhow::Result<Overview> {
    let text =
        fetch(host, port, "/overview").with_context(|| format!("cannot ask the admin server at {admin}"))?;
    serde_json::from_str(&text).with_context(|| format!("{admin} answered, but not as Redweir does"))
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    admin: &str,
    first: Overview,
    looks: &mpsc::Receiver<anyhow::Result<Overview>>,
) -> anyhow::Result<()> {
    let (mut history, mut overview, mut problem) = (History::default(), first, None);
    history.note(&overview);
    loop {
        terminal.draw(|frame| draw::screen(frame, admin, &overview, &history, problem.as_deref()))?;
        if event::poll(KEYS_EVERY)?
            && let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            let ends = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
                || key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if ends {
                return Ok(());
            }
        }
        for look in looks.try_iter() {
            match look {
                Ok(next) => {
                    history.note(&next);
                    (overview, problem) = (next, None);
                }
                Err(error) => problem = Some(format!("{error:#}")),
            }
        }
    }
}

/// A page for whoever has no terminal: what `redweir status` shows, and the rates.
fn plain(overview: &Overview, history: &History) -> String {
    let mut page = render(&overview.ready.text, &overview.view, &overview.doctor, false);
    page.push('\n');
    page.push_str(&history.lines().join("\n"));
    page.push('\n');
    page
}
