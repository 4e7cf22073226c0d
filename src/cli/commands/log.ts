/** `log`: the events themselves, filtered, from either end, or as they come. */
import { type Command, InvalidArgumentError } from 'commander'
import type { Base, DomainEvent, Point, WriteEvent } from '../../../events/types.ts'
import { CheckpointError } from '../../errors.ts'
import { parsePoint } from '../../store/points.ts'
import type { Store } from '../../store/store.ts'
import type { LogFilter, PointInput, RecordedEvent, WriteRange } from '../../store/types.ts'
import { UsageError } from '../exit.ts'
import { follow } from '../follow.ts'
import { withExamples } from '../help.ts'
import { collectWords, parsePositiveCount, parseRange } from '../parse.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { bitmapContext, pointOn } from '../view.ts'

/** A longer list of an event is told by its length: a window may hold thousands of ranges. */
const ITEMS_SHOWN = 4
/** Lines that are put together before they are written. */
const LINES_AT_ONCE = 512

/** Complete by its type: a new kind of event that is missing here does not compile. */
const EVERY_TYPE: Record<DomainEvent['type'] | WriteEvent['type'], true> = {
  write: true,
  window: true,
  'disk-added': true,
  'disk-resized': true,
  'disk-removed': true,
  'disk-attached': true,
  'disk-detached': true,
  'stretch-lost': true,
  'bitmap-added': true,
  'bitmap-removed': true,
  'bitmap-cleared': true,
  'bitmap-enabled': true,
  'bitmap-disabled': true,
  'bitmap-merged': true,
  'retention-set': true,
  'bitmap-reset': true,
  'slice-frozen': true,
  'slice-dropped': true,
  'slice-merged': true,
  'slice-reactivated': true,
  'backup-begun': true,
  'backup-pending': true,
  'backup-interrupted': true,
  'backup-resumed': true,
  'backup-succeeded': true,
  'backup-failed': true,
  'backup-cancelled': true,
  'checkpoint-created': true,
  'checkpoint-deleted': true,
  'clock-stepped': true,
  'backup-forgotten': true,
  'backups-combined': true,
  'log-compacted': true,
  'log-repaired': true,
  'disk-imported': true,
  'maybe-written': true,
  'disk-marked': true,
  'nothing-changed': true,
}
const TYPES: readonly string[] = Object.keys(EVERY_TYPE)

interface LogOptions {
  readonly from?: PointInput
  readonly to?: PointInput
  readonly disk?: string
  readonly bitmap?: string
  readonly type?: readonly string[]
  readonly by?: string
  readonly command?: string
  readonly correlation?: string
  readonly range?: WriteRange
  readonly reverse?: boolean
  readonly limit?: number
  readonly follow?: boolean
}

export function logCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('log')
      .description('the events of the log; with --json one object a line')
      .option('--from <point>', 'after this point, or from this time on', parsePoint)
      .option('--to <point>', 'up to this point', parsePoint)
      .option('--disk <disk>', 'only of this disk')
      .option('--bitmap <name>', 'the bitmap of --disk whose slices slice:N means (default: its only one)')
      .option('--type <types>', 'only these types, with commas: write,backup-begun', collectWords)
      .option('--by <actor>', 'only what this actor did')
      .option('--command <id>', 'only what the command of this id did')
      .option('--correlation <id>', 'only what was done under this correlation id')
      .option('--range <range>', 'only writes, and windows of writes, that touch OFFSET+LENGTH', range)
      .option('--reverse', 'newest first')
      .option('--limit <n>', 'at most so many', parsePositiveCount)
      .option(
        '--follow',
        'go on with what comes, until Ctrl-C (where no other process owns the store, this one does meanwhile)',
      ),
    [
      'slicelog --store ./state log --reverse --limit 20',
      'slicelog --store ./state log --disk vm-17/vda --type backup-begun,backup-succeeded',
      'slicelog --store ./state log --from 2026-11-18T18:00:00Z --range 1G+64K --json',
      'slicelog --store ./state log --correlation job-4711',
    ],
  ).action((options: LogOptions) => show(session, options))
}

function range(words: string): WriteRange {
  const parsed = parseRange(words)
  if (parsed.length === 0) throw new InvalidArgumentError('Its length must be 1 or more.')
  return parsed
}

async function show(session: Session, options: LogOptions): Promise<void> {
  if (options.follow === true && (options.reverse === true || options.to !== undefined)) {
    throw new UsageError('--follow goes forwards without an end: leave out --reverse and --to.')
  }
  if (options.bitmap !== undefined && options.disk === undefined)
    throw new UsageError('--bitmap is one of a disk: give --disk with it.')
  const unknown = options.type?.find((type) => !TYPES.includes(type))
  if (unknown !== undefined)
    throw new UsageError(`"${unknown}" is no type of event; --type takes ${TYPES.join(', ')}.`)
  await session.withStore(async (store) => {
    await checkDisk(store, options.disk)
    if (options.disk !== undefined && options.bitmap !== undefined)
      await checkBitmap(store, options.disk, options.bitmap)
    await printEvents(session, events(store, options, session.signal), options.follow === true).catch(
      (error: unknown) => {
        // Being stopped is how a long log is meant to end.
        if (!session.signal.aborted) throw error
      },
    )
  })
}

/** A disk that was removed still has its events: only one that the log has never seen is refused. */
async function checkDisk(store: Store, disk: string | undefined): Promise<void> {
  if (disk === undefined || store.disks().some((info) => info.disk === disk)) return
  for await (const _ of store.log({ disk, types: ['disk-added'], limit: 1 })) return
  void store.disk(disk).info // DISK_NOT_FOUND
}

/** The same of a bitmap. */
async function checkBitmap(store: Store, disk: string, bitmap: string): Promise<void> {
  const there = store.disks().find((info) => info.disk === disk)?.bitmaps ?? []
  if (there.includes(bitmap)) return
  for await (const { data } of store.log({ disk, types: ['bitmap-added'] }))
    if ('bitmap' in data && data.bitmap === bitmap) return
  const named = there.length === 0 ? 'it has none' : `it has ${there.map((name) => `"${name}"`).join(', ')}`
  throw new CheckpointError('BITMAP_NOT_FOUND', `disk "${disk}" never had a bitmap "${bitmap}"; ${named}`, {
    disk,
    bitmap,
    bitmaps: there,
  })
}

async function printEvents(
  session: Session,
  found: AsyncIterable<RecordedEvent>,
  atOnce: boolean,
): Promise<void> {
  const line =
    session.options.json === true ? JSON.stringify : (event: RecordedEvent) => forPeople(session, event)
  let lines: string[] = []
  for await (const event of found) {
    lines.push(line(event))
    if (lines.length < LINES_AT_ONCE && !atOnce) continue
    await session.print(lines.join('\n'))
    lines = []
  }
  if (lines.length > 0) await session.print(lines.join('\n'))
}

function events(store: Store, options: LogOptions, signal: AbortSignal): AsyncIterable<RecordedEvent> {
  const { disk, type, by, command, correlation, range, reverse, limit } = options
  const context = bitmapContext(store, disk, options.bitmap)
  const from = options.from === undefined ? undefined : pointOn(options.from, context)
  const to = options.to === undefined ? undefined : pointOn(options.to, context)
  const filter: LogFilter = {
    ...(from === undefined ? {} : { from }),
    ...(to === undefined ? {} : { to }),
    ...(disk === undefined ? {} : { disk }),
    ...(type === undefined ? {} : { types: type }),
    ...(by === undefined ? {} : { actor: by }),
    ...(command === undefined ? {} : { commandId: command }),
    ...(correlation === undefined ? {} : { correlationId: correlation }),
    ...(range === undefined ? {} : { range: { offset: range.offset, length: range.length } }),
    ...(reverse === undefined ? {} : { reverse }),
    ...(limit === undefined ? {} : { limit }),
    signal,
  }
  return options.follow === true ? follow(store, filter, signal) : store.log(filter)
}

function forPeople(session: Session, event: RecordedEvent): string {
  const { colors } = session.paint
  const { actor, commandId, correlationId } = event.cause
  const cause = [actor, commandId, correlationId].filter((word) => word !== undefined).join(' ')
  const head = `${String(event.position).padStart(9)}  ${text.time(event.time)}  ${colors.cyan(event.type.padEnd(18))}`
  return `${head} ${text.shown(`${event.disk ?? '-'}  ${described(event)}`)}${cause === '' ? '' : `  ${colors.dim(`(${text.shown(cause)})`)}`}`.trimEnd()
}

function described(event: RecordedEvent): string {
  if (event.type === 'write') {
    const { op, offset, length } = event.data as { op?: string; offset?: number; length?: number }
    return `${op === 'write' ? '' : `${op} `}${offset}+${length}`
  }
  return Object.entries(event.data)
    .map(([name, value]) => `${name}=${valueText(name, value)}`)
    .join(' ')
}

/** Points as `@17`, digests by their first figures, long lists by their length; all of it is in --json. */
function valueText(name: string, value: unknown): string {
  if (Array.isArray(value) && value.length > ITEMS_SHOWN) return `${text.count(value.length)} items`
  if (typeof value === 'string') return name === 'digest' ? text.shortDigest(value) : value
  if (!isPoint(value)) return JSON.stringify(value)
  return 'kind' in value ? text.base(value as Base) : text.place(value)
}

function isPoint(value: unknown): value is Point {
  return typeof value === 'object' && value !== null && 'position' in value && 'time' in value
}
