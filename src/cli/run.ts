/**
 * One run of the command line, from words to an exit code. Ctrl-C once: what is being appended is finished, the store is
 * closed, exit 130; the second one is the caller's to act on (main.ts ends at once).
 *
 * Where another process owns the store and serves it (R34), the words go there, and this very function runs on its open store.
 */
import { CommanderError } from 'commander'
import { CheckpointError } from '../errors.ts'
import { askOwner, OwnerFound } from './ask-owner.ts'
import { EXIT, failureOf } from './exit.ts'
import type { Io } from './io.ts'
import { buildProgram } from './program.ts'
import { shown } from './render/text.ts'
import { type RunAt, Session } from './session.ts'

/** An owner that closes its store just then is followed by another one, or by nobody. */
const ATTEMPTS = 3

/** What stopped a run before its end, if anything did. */
interface Stopped {
  readonly signal: AbortSignal
  readerGone: boolean
  ownerClosing: boolean
  broken: Error | undefined
  /** Where Ctrl-C goes while the owner runs the command. */
  passOn: ((why: 'interrupt' | 'closed-pipe') => void) | undefined
}

/** Runs `slicelog` with these arguments (without node and script). Resolves to the exit code; never throws. */
export async function run(argv: readonly string[], io: Io, at?: RunAt): Promise<number> {
  const { stopped, stopListening } = listen(argv, io)
  try {
    return await attempts(argv, io, at, stopped)
  } catch (error) {
    await soon()
    if (stopped.readerGone) return EXIT.done
    if (stopped.broken !== undefined) return tell(stopped.broken, argv, io, false)
    if (stopped.ownerClosing) return tell(ownerClosing(), argv, io, false)
    return tell(error, argv, io, stopped.signal.aborted)
  } finally {
    stopListening()
  }
}

function listen(
  argv: readonly string[],
  io: Io,
): { readonly stopped: Stopped; readonly stopListening: () => void } {
  const stopping = new AbortController()
  const stopped: Stopped = {
    signal: stopping.signal,
    readerGone: false,
    ownerClosing: false,
    broken: undefined,
    passOn: undefined,
  }
  const stopListening = io.onInterrupt((why) => {
    if (why === 'closed-pipe') stopped.readerGone = true
    else if (why === 'owner-closing') stopped.ownerClosing = true
    else if (why instanceof Error) stopped.broken ??= unwritten(why)
    else if (stopped.passOn === undefined && !stopping.signal.aborted && !argv.includes('--json'))
      io.stderr.write('slicelog: stopping (Ctrl-C again ends at once)\n')
    stopped.passOn?.(why === 'interrupt' ? 'interrupt' : 'closed-pipe')
    stopping.abort()
  })
  return { stopped, stopListening }
}

async function attempts(
  argv: readonly string[],
  io: Io,
  at: RunAt | undefined,
  stopped: Stopped,
): Promise<number> {
  let words = argv
  for (let left = ATTEMPTS; ; left--) {
    const code = await attempt(words, io, at, stopped, (said) => {
      words = said
    })
    await soon()
    if (stopped.readerGone) return EXIT.done
    if (stopped.broken !== undefined) throw stopped.broken
    if (stopped.ownerClosing) throw ownerClosing()
    if (code !== 'again') return code
    if (left <= 1) throw new CheckpointError('OWNER_UNREACHABLE', 'The store is being closed. Ask again.', {})
  }
}

/** `again`: the owner that was found does not answer any more, and has done nothing. */
async function attempt(
  argv: readonly string[],
  io: Io,
  at: RunAt | undefined,
  stopped: Stopped,
  onSaid: (words: readonly string[]) => void,
): Promise<number | 'again'> {
  const program = buildProgram(
    io,
    argv.includes('--json'),
    (command) => new Session(io, stopped.signal, command, at),
  )
  try {
    await program.command.parseAsync([...argv], { from: 'user' })
    return program.session.wasCancelled ? EXIT.cancelled : program.session.exit
  } catch (error) {
    if (!(error instanceof OwnerFound)) throw error
    const words = program.session.inWords(argv)
    onSaid(words)
    return await askOwner(error, program.session.action, words, io, (passOn) => {
      stopped.passOn = passOn
      if (stopped.signal.aborted) passOn('interrupt')
    })
  }
}

/** A failed write is told a little after it was made. */
function soon(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}

/** What the command did stays done: only telling it failed. */
function unwritten(error: Error): Error {
  return new Error(
    `The answer could not be written to the output (${error.message}). What the command did is done.`,
  )
}

function ownerClosing(): CheckpointError {
  return new CheckpointError(
    'STORE_CLOSED',
    'The owner closes its store, so this was cut off. What was printed holds; ask again for the rest.',
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
