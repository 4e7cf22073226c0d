/** `bitmap add|retention|remove|clear|enable|disable|merge|ls`; `show` has a file of its own. */
import type { Command } from 'commander'
import type { Store } from '../../store/store.ts'
import type { StateView } from '../../store/view.ts'
import { withExamples } from '../help.ts'
import { type BitmapReference, parseBitmapReference, parseCount, parseSize } from '../parse.ts'
import { table } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { bitmapShape } from '../shapes.ts'
import { bitmapMeant, viewAfter, viewBefore } from '../view.ts'
import { bitmapShowCommand } from './bitmap-show.ts'

interface AddOptions {
  readonly granularity?: number
  readonly retention?: number
  readonly transient?: boolean
  readonly disabled?: boolean
}

export function bitmapCommands(program: Command, session: Session): void {
  const family = program
    .command('bitmap')
    .description('the bitmaps of a disk: one bit per granule, set where a write touched')
  withExamples(
    family
      .command('add')
      .description('add a bitmap')
      .argument('<disk>')
      .argument('<bitmap>')
      .option(
        '--granularity <size>',
        'bytes per bit, a power of two from 512 to 2G (default: 64K)',
        parseSize,
      )
      .option('--retention <n>', 'how many slices to keep (default: 0)', parseCount)
      .option('--transient', 'remove it when its disk is detached')
      .option('--disabled', 'do not record yet'),
    ['slicelog --store ./state bitmap add vm-17/vda daily --granularity 64K --retention 10'],
  ).action((disk: string, bitmap: string, options: AddOptions) => add(session, disk, bitmap, options))
  withExamples(
    family
      .command('retention')
      .description('set how many slices to keep')
      .argument('<disk>')
      .argument('<bitmap>')
      .argument('<n>', 'slices', parseCount)
      .option('--force-cycle', 'drop the oldest slices that are too many'),
    ['slicelog --store ./state bitmap retention vm-17/vda daily 4 --force-cycle'],
  ).action((disk: string, bitmap: string, n: number, options: { forceCycle?: boolean }) =>
    retention(session, disk, bitmap, n, options.forceCycle === true),
  )
  for (const verb of ['remove', 'clear', 'enable', 'disable'] as const) {
    withExamples(
      family.command(verb).description(VERBS[verb].about).argument('<disk>').argument('<bitmap>'),
      [`slicelog --store ./state bitmap ${verb} vm-17/vda daily`],
    ).action((disk: string, bitmap: string) => act(session, verb, disk, bitmap))
  }
  withExamples(
    family
      .command('merge')
      .description('merge the bits of other bitmaps into one')
      .argument('<disk>')
      .argument('<bitmap>', 'the target')
      .argument('<sources...>', 'BITMAP of the same disk, or DISK:BITMAP'),
    [
      'slicelog --store ./state bitmap merge vm-17/vda weekly daily',
      'slicelog --store ./state bitmap merge vda all vdb:daily',
    ],
  ).action((disk: string, bitmap: string, sources: string[]) => merge(session, disk, bitmap, sources))
  withExamples(family.command('ls').description('list bitmaps').argument('[disk]', 'only this disk'), [
    'slicelog --store ./state bitmap ls',
  ]).action((disk: string | undefined) => list(session, disk))
  bitmapShowCommand(family, session)
}

const VERBS = {
  remove: { about: 'remove a bitmap and its slices', done: 'Removed' },
  clear: { about: "forget the active slice's bits; slices stay", done: 'Cleared' },
  enable: { about: 'record writes again', done: 'Enabled' },
  disable: { about: 'stop recording writes, keep the bits', done: 'Disabled' },
} as const

async function add(session: Session, disk: string, bitmap: string, options: AddOptions): Promise<void> {
  await session.withStore(async (store) => {
    const { granularity, retention } = options
    await store.disk(disk).addBitmap(
      bitmap,
      {
        ...(granularity === undefined ? {} : { granularity }),
        ...(retention === undefined ? {} : { retention }),
        ...(options.transient === true ? { persistent: false } : {}),
        ...(options.disabled === true ? { disabled: true } : {}),
      },
      session.commandOptions,
    )
    const info = (await answered(session, store)).bitmap(disk, bitmap)
    await session.confirm(
      bitmapShape(info),
      () => `Added ${bitmap} to ${disk}: ${text.bytes(info.granularity)} a bit, retention ${info.retention}.`,
    )
  })
}

async function retention(
  session: Session,
  disk: string,
  bitmap: string,
  n: number,
  forceCycle: boolean,
): Promise<void> {
  await session.withStore(async (store) => {
    const { droppedSlices } = await store
      .disk(disk)
      .bitmap(bitmap)
      .setRetention(n, { forceCycle, ...session.commandOptions })
    await session.confirm({ disk, bitmap, retention: n, 'dropped-slices': droppedSlices }, () =>
      droppedSlices.length === 0
        ? `${bitmap} keeps ${text.plural(n, 'slice')}.`
        : `${bitmap} keeps ${text.plural(n, 'slice')}; dropped ${droppedSlices.map((dropped) => Object.values(dropped).join()).join(', ')}.`,
    )
  })
}

async function act(session: Session, verb: keyof typeof VERBS, disk: string, bitmap: string): Promise<void> {
  await session.withStore(async (store) => {
    await store.disk(disk).bitmap(bitmap)[verb](session.commandOptions)
    const now =
      verb === 'remove'
        ? { disk, bitmap, removed: true }
        : bitmapShape((await answered(session, store)).bitmap(disk, bitmap))
    await session.confirm(now, () => `${VERBS[verb].done} ${bitmap} of ${disk}.`)
  })
}

async function merge(
  session: Session,
  disk: string,
  bitmap: string,
  sources: readonly string[],
): Promise<void> {
  await session.withStore(async (store) => {
    const before = await viewBefore(store, session.commandOptions.commandId)
    await store
      .disk(disk)
      .bitmap(bitmap)
      .merge(
        sources.map((source) => bitmapMeant(before, meaningsOf(disk, source))),
        session.commandOptions,
      )
    const view = await answered(session, store)
    const { count } = await view.bits(disk, bitmap)
    await session.confirm(
      { ...bitmapShape(view.bitmap(disk, bitmap)), count },
      () => `Merged into ${bitmap}: ${text.bytes(count)} dirty.`,
    )
  })
}

/** A bitmap's name may hold colons as well. */
function meaningsOf(disk: string, source: string): readonly BitmapReference[] {
  const own = { disk, bitmap: source }
  return source.includes(':') ? [...parseBitmapReference(source), own] : [own]
}

function answered(session: Session, store: Store): Promise<StateView> {
  return viewAfter(store, session.commandOptions.commandId)
}

async function list(session: Session, disk: string | undefined): Promise<void> {
  await session.withStore(async (store) => {
    const disks = disk === undefined ? store.disks().map((info) => info.disk) : [disk]
    const bitmaps = disks.flatMap((id) => store.disk(id).bitmaps())
    await session.answer({ bitmaps: bitmaps.map(bitmapShape) }, () =>
      bitmaps.length === 0
        ? 'No bitmaps. Add one with: slicelog bitmap add DISK BITMAP'
        : table(
            session.paint,
            [
              'disk',
              'bitmap',
              '>granularity',
              'recording',
              'busy',
              '>slices',
              '>retention',
              '>next',
              '>generation',
            ],
            bitmaps.map((info) => [
              info.disk,
              info.bitmap,
              text.bytes(info.granularity),
              info.recording ? 'yes' : 'no',
              info.busy ? 'yes' : 'no',
              info.slices,
              info.retention,
              info.next,
              info.generation,
            ]),
          ),
    )
  })
}
