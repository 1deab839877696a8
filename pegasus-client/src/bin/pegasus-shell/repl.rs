//! The interactive form: a command per line of standard input.
//!
//! At a terminal there is a prompt and errors are only shown; from a file or a pipe the commands run as far as they
//! go and the exit status tells whether one of them failed.

use clap::Parser;
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use crate::cli::Line;
use crate::{Shell, complain, words};

/// Longest line that is read, in bytes.
const LINE_MAX: u64 = 4 << 20;

/// What a line asks for.
enum Asked {
    Nothing,
    End,
    Command(Box<crate::cli::Command>),
}

/// Reads lines until the end or `exit`.
///
/// # Errors
/// Standard input or output failing.
pub fn run(shell: &mut Shell) -> anyhow::Result<ExitCode> {
    let mut input = std::io::stdin().lock();
    let interactive = input.is_terminal() && std::io::stdout().is_terminal();
    let mut code = ExitCode::SUCCESS;
    if interactive {
        println!("Pegasus shell. 'help' lists the commands, 'help COMMAND' explains one.");
    }
    loop {
        if interactive {
            print!("pegasus> ");
            std::io::stdout().flush()?;
        }
        let mut line = Vec::new();
        let length = std::io::Read::take(&mut input, LINE_MAX).read_until(b'\n', &mut line)?;
        if length as u64 == LINE_MAX && line.last() != Some(&b'\n') {
            anyhow::bail!("a line is longer than {LINE_MAX} bytes");
        }
        if length == 0 {
            return Ok(code);
        }
        let outcome = match parse(&line) {
            Ok(Asked::Nothing) => Ok(()),
            Ok(Asked::End) => return Ok(code),
            Ok(Asked::Command(command)) => shell.run(*command),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            code = match error.downcast_ref::<clap::Error>() {
                Some(shown) => {
                    shown.print()?;
                    if shown.use_stderr() { ExitCode::FAILURE } else { code }
                }
                None => complain(&error),
            };
        }
    }
}

fn parse(line: &[u8]) -> anyhow::Result<Asked> {
    let words = words::split(std::str::from_utf8(line)?)?;
    Ok(match words.first().map(String::as_str) {
        None => Asked::Nothing,
        Some("exit" | "quit") => Asked::End,
        Some(_) => Asked::Command(Box::new(Line::try_parse_from(words)?.command)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands() {
        assert!(matches!(parse(b"  # a remark\n"), Ok(Asked::Nothing)));
        assert!(matches!(parse(b"exit\n"), Ok(Asked::End)));
        assert!(matches!(parse(b"get temp 'a b' c\n"), Ok(Asked::Command(_))));
        let shown = |line| parse(line).err().unwrap().downcast::<clap::Error>().unwrap();
        assert_eq!(shown(b"help\n").kind(), clap::error::ErrorKind::DisplayHelp);
        assert!(shown(b"help\n").to_string().contains("multi_get"));
        assert!(shown(b"help set\n").to_string().contains("--ttl"));
        assert!(shown(b"gte temp\n").use_stderr());
        assert!(parse(b"get 'temp\n").is_err());
        assert!(parse(b"get \xff\n").is_err());
    }
}
