/** `import`: a trace of a real machine's writes into a disk's history. */
import { type Command, Option } from 'commander'
import { timeOf } from '../../store/points.ts'
import type { Clock } from '../../store/types.ts'
import { TRACE_ACTIONS, type TraceAction } from '../../traces/format.ts'
import { TRACE_FORMATS } from '../../traces/formats.ts'
import { type Imported, importTrace } from '../../traces/import.ts'
import { attach } from '../attach.ts'
import { UsageError } from '../exit.ts'
import { withExamples } from '../help.ts'
import { parseTime } from '../parse.ts'
import { facts } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { importedShape } from '../shapes.ts'

/** More than clocks and time zones differ by. */
const FAR_AHEAD_MS = 24 * 3600 * 1000

interface ImportCommandOptions {
  readonly at?: string
  readonly skipBad?: boolean
  readonly quiet?: boolean
  readonly device?: string
  readonly file?: string
  readonly export?: string
  readonly action?: TraceAction
}

export function importCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('import')
      .description("record a trace's writes, with the distances in time that they had")
      .argument('<disk>')
      .argument('<trace>', 'a file, also gzip; its format is found by its content')
      .option(
        '--at <time>',
        "when its first line happened; not before the log's last event (default: the log's clock)",
        parseTime,
      )
      .option('--skip-bad', 'count bad lines and go on; otherwise one bad line refuses the whole trace')
      .option(
        '--quiet',
        'nothing was written to the disk since the last session ended, though it ended uncleanly',
      )
      .option('--device <name>', 'of a blkparse (8,0) or MSR Cambridge (HOST_DISK) trace: which disk to take')
      .option('--file <name>', 'of a fio log: which file to take, as it is named there')
      .option('--export <name>', "of nbdkit's log: which export to take")
      .addOption(
        new Option(
          '--action <step>',
          'of a blkparse trace: the step whose lines are taken (default: Q)',
        ).choices([...TRACE_ACTIONS]),
      )
      .addHelpText(
        'after',
        `\nFormats:\n${TRACE_FORMATS.map(({ name, columns }) => `  ${name}: ${columns}`).join('\n')}`,
      ),
    [
      'slicelog --store ./state import vm-17/vda trace.csv.gz',
      'slicelog --store ./state import vm-17/vda trace.csv --at 2026-11-18T18:00:00Z --skip-bad',
      'slicelog --store ./state import vm-17/vda sda.blkparse.gz --device 8,0',
    ],
  ).action((disk: string, trace: string, options: ImportCommandOptions) =>
    runImport(session, disk, trace, options),
  )
}

/**
 * An import into the past happens at that time: the attach that goes before its writes must not be stamped with the present,
 * since time never goes back along the log (R22).
 */
function clockOf(at: string | undefined): Clock | undefined {
  const time = at === undefined ? Number.POSITIVE_INFINITY : timeOf(at)
  return time < Date.now() ? { now: () => time, monotonic: () => 0 } : undefined
}

/** Time never goes back along the log (R22): after a wrong year every event has that time, for good. */
function warnOfFuture(session: Session, at: string | undefined): void {
  if (at === undefined || timeOf(at) <= Date.now() + FAR_AHEAD_MS) return
  session.note(
    `slicelog: --at ${new Date(timeOf(at)).toISOString()} lies in the future. Time never goes back along the log, so all that is recorded until then gets the time of the trace's end.`,
  )
}

async function runImport(
  session: Session,
  disk: string,
  trace: string,
  options: ImportCommandOptions,
): Promise<void> {
  if (session.options.commandId !== undefined) {
    throw new UsageError('Writes are no commands and an import takes no --command-id.')
  }
  const clock = clockOf(options.at)
  await session.withStore(
    async (store) => {
      const bar = session.progress('import')
      const imported = await importTrace(store, disk, session.path(trace), {
        ...(options.at === undefined ? {} : { at: options.at }),
        ...(options.device === undefined ? {} : { device: options.device }),
        ...(options.file === undefined ? {} : { file: options.file }),
        ...(options.export === undefined ? {} : { export: options.export }),
        ...(options.action === undefined ? {} : { action: options.action }),
        skipBad: options.skipBad === true,
        beforeRecording: () => {
          warnOfFuture(session, options.at)
          return attach(session, store, disk, { quiet: options.quiet === true, time: clock?.now() })
        },
        signal: session.signal,
        onProgress: ({ phase, read, size, writes }) =>
          bar.update(read, size, `${phase}, ${text.count(writes)} writes`),
      }).finally(() => bar.stop())
      await session.answer(importedShape(imported), () => report(session, imported))
    },
    { clock },
  )
}

function report(session: Session, imported: Imported): string {
  const ignored = `${text.plural(imported.reads, 'read')}, ${text.plural(imported.flushes, 'flush', 'flushes')}, ${text.plural(imported.others, 'other')}`
  const lines = facts(session.paint, [
    ['format', imported.format],
    ...(imported.part === null
      ? []
      : [['writes of', imported.part === '' ? 'the default export' : text.shown(imported.part)] as const]),
    ['lines', text.count(imported.lines)],
    ['writes', `${text.count(imported.writes)}, ${text.bytes(imported.bytes)}`],
    ['not recorded', `${ignored}, ${text.count(imported.empty)} of length 0`],
    ['bad lines', text.count(imported.bad)],
    ['out of order', text.count(imported.clamped)],
    ['positions', imported.first === null ? '-' : `@${imported.first} to @${imported.last}`],
    ['time', imported.from === null ? '-' : `${text.time(imported.from)} to ${text.time(imported.to)}`],
    ['shift', imported.shift === null ? '-' : `${imported.shift} ms added to the trace's times`],
  ])
  const bad = imported.badLines.map(({ line, why }) => `  line ${line}: ${text.shown(why)}`)
  return [lines, ...(bad.length === 0 ? [] : ['Skipped, the first of them:', ...bad])].join('\n')
}
