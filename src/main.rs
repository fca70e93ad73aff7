//! The program: see `modal_gateway::cli`.

/// Requests allocate and free many short texts, on all threads: docs/benchmarks.md has what each allocator costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    modal_gateway::cli::main()
}
