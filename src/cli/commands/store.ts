/** `init`, `status`, `head`: the store as a whole. */
import type { Command } from 'commander'
import { CheckpointError } from '../../errors.ts'
import type { StoreStatus } from '../../store/types.ts'
import { withExamples } from '../help.ts'
import { facts } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { statusShape } from '../shapes.ts'

export function storeCommands(program: Command, session: Session): void {
  withExamples(program.command('init').description('make a store in an absent or empty folder'), [
    'slicelog --store ./state init',
  ]).action(() => init(session))
  withExamples(
    program.command('status').description('what the store holds and how it was found at opening'),
    ['slicelog --store ./state status', 'slicelog --store ./state status --json'],
  ).action(() => status(session))
  withExamples(
    program
      .command('head')
      .description("the log's head: keep it elsewhere, and `verify --against` finds a cut tail"),
    [
      'slicelog --store ./state head --json > head.json',
      'slicelog --store ./state verify --against head.json',
    ],
  ).action(() => head(session))
}

async function init(session: Session): Promise<void> {
  const exists = await session
    .withStore(async () => true)
    .catch((error: unknown) => {
      const code = error instanceof CheckpointError ? error.code : ''
      if (code === 'STORE_NOT_FOUND' || code === 'NOT_A_STORE') return false
      throw error
    })
  if (exists) {
    const message = `${session.folder} is a store already. Use it as it is, or name another folder.`
    throw new CheckpointError('STORE_EXISTS', message, { folder: session.folder })
  }
  // A folder that holds something else is refused here: NOT_A_STORE.
  await session.withStore(
    async (store) => {
      const { format } = await store.status()
      await session.confirm({ store: session.folder, format }, () => `Made a store in ${session.folder}.`)
    },
    { create: true },
  )
}

async function status(session: Session): Promise<void> {
  await session.withStore(async (store) => {
    const status = await store.status()
    const { backups, opened } = status
    await session.answer(statusShape(status, session.owner), () =>
      facts(session.paint, [
        ['store', status.folder ?? 'memory'],
        ...(session.owner === null
          ? []
          : [['answered by', `process ${session.owner.pid}, which owns it`] as const]),
        ['format', status.format],
        ['events', text.count(status.events)],
        ['head', text.point(status.head)],
        ['durable up to', text.point(status.synced)],
        ['durability', status.durability],
        ['disks', status.disks],
        ['bitmaps', `${status.bitmaps}, with ${text.plural(status.slices, 'slice')}`],
        [
          'backups',
          `${backups.running} running, ${backups.succeeded} succeeded, ${backups.failed} failed, ${backups.cancelled} cancelled`,
        ],
        ['checkpoints', status.checkpoints],
        ['on disk', `${text.bytes(status.bytes.log)} of log, ${text.bytes(status.bytes.derived)} derived`],
        ['grows', growth(status)],
        ['compaction', compaction(status)],
        ['bits in memory', text.bytes(status.memory.bits)],
        ['last session', lastSession(opened.clean, opened.rebooted)],
        ...(opened.rebuilt.length === 0 ? [] : [['rebuilt', opened.rebuilt.join('; ')] as const]),
      ]),
    )
  })
}

const DAY_MS = 86_400_000

function growth({ growth: { eventsPerDay, bytesPerDay, days } }: StoreStatus): string {
  if (days === 0) return 'too young to tell'
  return `${text.count(eventsPerDay)} events a day, ${text.bytes(bytesPerDay)} of records (by the last ${text.duration(days * DAY_MS)})`
}

function compaction({ compaction: { policy, events, bytes, exact, last } }: StoreStatus): string {
  const wouldBe =
    events === 0
      ? `nothing to fold by ${policy}`
      : `${policy} would fold ${exact ? '' : 'about '}${text.count(events)} writes and give ${text.bytes(bytes)} back`
  return last?.kind === 'failed' ? `${wouldBe}; the last pass failed: ${last.error}` : wouldBe
}

function lastSession(clean: boolean, rebooted: boolean): string {
  if (clean) return 'closed cleanly'
  return rebooted ? 'ended uncleanly, and the machine restarted since' : 'ended uncleanly'
}

async function head(session: Session): Promise<void> {
  await session.withStore(async (store) => {
    const { position, time, hash } = store.head
    await session.answer({ position, time, hash }, () => `${text.point({ position, time })}\n${hash}`)
  })
}
