/**
 * One run of the command line, from words to an exit code. Ctrl-C once: what is being appended is finished, the store is
 * closed, exit 130; the second one is the caller's to act on (main.ts ends at once).
 */
import { CommanderError } from 'commander'
import { EXIT, failureOf } from './exit.ts'
import type { Io } from './io.ts'
import { buildProgram } from './program.ts'
import { shown } from './render/text.ts'
import { Session } from './session.ts'

/** Runs `slicelog` with these arguments (without node and script). Resolves to the exit code; never throws. */
export async function run(argv: readonly string[], io: Io): Promise<number> {
  const stopping = new AbortController()
  let readerGone = false
  let broken: Error | undefined
  const stopListening = io.onInterrupt((why) => {
    if (why === 'closed-pipe') readerGone = true
    else if (why instanceof Error) broken ??= unwritten(why)
    else if (!stopping.signal.aborted && !argv.includes('--json'))
      io.stderr.write('slicelog: stopping (Ctrl-C again ends at once)\n')
    stopping.abort()
  })
  const program = buildProgram(
    io,
    argv.includes('--json'),
    (command) => new Session(io, stopping.signal, command),
  )
  try {
    await program.command.parseAsync([...argv], { from: 'user' })
    // A failed write is told a little after it was made.
    await new Promise((resolve) => setImmediate(resolve))
    if (readerGone) return EXIT.done
    if (broken !== undefined) return tell(broken, argv, io, false)
    return stopping.signal.aborted ? EXIT.cancelled : program.session.exit
  } catch (error) {
    if (readerGone) return EXIT.done
    if (broken !== undefined) return tell(broken, argv, io, false)
    return tell(error, argv, io, stopping.signal.aborted)
  } finally {
    stopListening()
  }
}

/** What the command did stays done: only telling it failed. */
function unwritten(error: Error): Error {
  return new Error(
    `The answer could not be written to the output (${error.message}). What the command did is done.`,
  )
}

function tell(error: unknown, argv: readonly string[], io: Io, cancelled: boolean): number {
  const failure = failureOf(error)
  if (failure.exit === EXIT.done) return EXIT.done
  // Options may not have been parsed when parsing is what failed.
  if (argv.includes('--json')) {
    const { code, message, facts } = failure
    io.stderr.write(`${JSON.stringify({ error: { code, message, facts } })}\n`)
  } else {
    // Commander's own lines ("Did you mean …?") stay lines.
    const lines = (error instanceof CommanderError ? failure.message.split('\n') : [failure.message])
      .map(shown)
      .join('\n')
    const help = error instanceof CommanderError ? ' (see slicelog help)' : ''
    io.stderr.write(`slicelog: ${lines}${help}\ncode ${failure.code}\n`)
  }
  return cancelled ? EXIT.cancelled : failure.exit
}
