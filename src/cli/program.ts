/** The whole command line put together: global options, help, and a family of commands per file. */
import { Command } from 'commander'
import { atCommand } from './commands/at.ts'
import { backupCommands } from './commands/backup.ts'
import { bitmapCommands } from './commands/bitmap.ts'
import { blameCommand } from './commands/blame.ts'
import { changedCommand } from './commands/changed.ts'
import { checkpointCommands } from './commands/checkpoint.ts'
import { compactCommand } from './commands/compact.ts'
import { copyCommand } from './commands/copy.ts'
import { coverageCommand } from './commands/coverage.ts'
import { diskCommands } from './commands/disk.ts'
import { explainCommand } from './commands/explain.ts'
import { historyCommands } from './commands/history.ts'
import { importCommand } from './commands/import.ts'
import { incidentCommands } from './commands/incident.ts'
import { logCommand } from './commands/log.ts'
import { repairCommand } from './commands/repair.ts'
import { replayCommand } from './commands/replay.ts'
import { serveCommand } from './commands/serve.ts'
import { sliceCommands } from './commands/slice.ts'
import { storeCommands } from './commands/store.ts'
import { verifyCommand } from './commands/verify.ts'
import { writeCommand } from './commands/write.ts'
import { EXIT_CODES_HELP } from './exit.ts'
import { strictHelp, withExamples } from './help.ts'
import type { Io } from './io.ts'
import type { Session } from './session.ts'
import { version } from './version.ts'

const POINTS_HELP = `Points in time:
  start, now, @POSITION, an ISO 8601 time, slice:N, slice:GENERATION.N, backup:ID, checkpoint:NAME
Sizes take binary suffixes: 512, 64K, 64KiB, 1T.`

export interface Program {
  readonly command: Command
  readonly session: Session
}

/** `silent`: stderr is for the one JSON object, so no help goes there. */
export function buildProgram(io: Io, silent: boolean, makeSession: (command: Command) => Session): Program {
  const command = new Command('slicelog')
    .description('An event-sourced checkpoint store for block devices.')
    .version(version)
    .option('--store <dir>', 'the folder of the store (or SLICELOG_STORE)')
    .option('--json', 'answer as JSON; errors too, on stderr')
    .option('--actor <name>', 'who acts, as the log will say (default: cli)')
    .option('--command-id <id>', 'the same id with the same arguments gives the first answer again')
    .exitOverride()
    .showHelpAfterError(false)
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void (silent || io.stderr.write(text)),
      // Errors are told once, by run.ts, in the shape that was asked for.
      outputError: () => {},
    })
    .addHelpText('after', `\n${POINTS_HELP}\n\n${EXIT_CODES_HELP}`)
  withExamples(command, [
    'slicelog --store ./state init',
    'slicelog --store ./state disk add vm-17/vda --size 64G',
    'slicelog --store ./state bitmap add vm-17/vda daily --retention 10',
    'slicelog --store ./state import vm-17/vda trace.csv.gz',
    'slicelog --store ./state backup begin vm-17/vda daily --mode incremental --json',
    'slicelog --store ./state changed vm-17/vda --since 2026-11-18T18:00:00Z',
  ])
  const session = makeSession(command)
  for (const family of FAMILIES) family(command, session)
  strictHelp(command)
  return { command, session }
}

const FAMILIES = [
  storeCommands,
  diskCommands,
  bitmapCommands,
  writeCommand,
  importCommand,
  serveCommand,
  backupCommands,
  sliceCommands,
  checkpointCommands,
  changedCommand,
  coverageCommand,
  atCommand,
  explainCommand,
  blameCommand,
  historyCommands,
  logCommand,
  verifyCommand,
  repairCommand,
  compactCommand,
  copyCommand,
  replayCommand,
  incidentCommands,
]
