//! The program: see `modal_gateway::cli`.

fn main() -> std::process::ExitCode {
    modal_gateway::cli::main()
}
