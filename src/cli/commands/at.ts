/** `at`: the whole state as it was at any moment (R22). */
import type { Command } from 'commander'
import type { PastState } from '../../store/past.ts'
import { parsePoint } from '../../store/points.ts'
import type { PointInput } from '../../store/types.ts'
import type { StateView } from '../../store/view.ts'
import { withExamples } from '../help.ts'
import { backupTable } from '../render/backups.ts'
import { table } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { backupShape, bitmapShape, checkpointShape, diskShape, slicesShape } from '../shapes.ts'
import { bitmapContext } from '../view.ts'

interface SliceOptions {
  readonly disk?: string
  readonly bitmap?: string
}

export function atCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('at')
      .description('the whole state as it was: disks, bitmaps, slices, backups, checkpoints')
      .argument('<point>', 'a POINT; slice:N is one of --disk and --bitmap', parsePoint)
      .option('--disk <disk>', 'the disk whose slice slice:N is')
      .option('--bitmap <name>', "its bitmap (default: the disk's, where it has only one)"),
    [
      'slicelog --store ./state at slice:2 --disk vm-17/vda --bitmap daily',
      'slicelog --store ./state at 2026-11-18T18:00:00Z',
      'slicelog --store ./state at @1200 --json',
    ],
  ).action((point: PointInput, options: SliceOptions) => show(session, point, options))
}

async function show(session: Session, point: PointInput, { disk, bitmap }: SliceOptions): Promise<void> {
  await session.withStore(async (store) => {
    const named = typeof point === 'object' && 'slice' in point
    const found = named
      ? await store.resolvePoint(point, 'at', { disk, ...bitmapContext(store, disk, bitmap) })
      : undefined
    const past = await store.at(found === undefined ? point : { position: found.position }, {
      signal: session.signal,
    })
    const bitmaps = await bitmapsOf(past)
    await session.answer(shape(past, bitmaps), () => report(session, past, bitmaps))
  })
}

type BitmapThen = Awaited<ReturnType<typeof bitmapsOf>>[number]

async function bitmapsOf(past: StateView) {
  const all = past.disks().flatMap(({ disk }) => past.bitmaps(disk))
  return Promise.all(
    all.map(async (info) => ({
      info,
      bits: await past.bits(info.disk, info.bitmap),
      slices: await past.slices(info.disk, info.bitmap),
    })),
  )
}

function shape(past: PastState, bitmaps: readonly BitmapThen[]) {
  return {
    point: past.point,
    'clock-steps': past.clockSteps,
    disks: past.disks().map((disk) => ({
      ...diskShape(disk),
      bitmaps: bitmaps
        .filter(({ info }) => info.disk === disk.disk)
        .map(({ info, bits, slices }) => ({
          ...bitmapShape(info),
          count: bits.count,
          digest: bits.digest,
          slices: slicesShape(slices).slices,
        })),
    })),
    backups: [...past.backups()].map(backupShape),
    checkpoints: [...past.checkpoints()].map(checkpointShape),
  }
}

function report(session: Session, past: PastState, bitmaps: readonly BitmapThen[]): string {
  const { paint } = session
  const disks = past
    .disks()
    .map((disk) => [disk.disk, text.bytes(disk.size), disk.attached ? 'yes' : 'no', text.point(disk.last)])
  const bits = bitmaps.map(({ info, bits, slices }) => [
    info.disk,
    info.bitmap,
    text.bytes(info.granularity),
    text.bytes(bits.count),
    text.shortDigest(bits.digest),
    info.recording ? 'yes' : 'no',
    info.busy ? 'yes' : 'no',
    slices.slices.map((slice) => `${slice.slice}:${text.bytes(slice.count)}`).join(' ') || '-',
  ])
  const backups = [...past.backups()]
  const crossed = text.clockSteps(past.clockSteps).map((step) => step.join('  '))
  const checkpoints = [...past.checkpoints()].map(({ name, point }) => [name, text.point(point)])
  return [
    [`The store at ${text.point(past.point)}`, ...crossed].join('\n'),
    section('Disks', disks.length, () => table(paint, ['disk', '>size', 'attached', 'last event'], disks)),
    section('Bitmaps', bits.length, () =>
      table(
        paint,
        ['disk', 'bitmap', '>granularity', '>dirty', 'digest', 'recording', 'busy', 'slices'],
        bits,
      ),
    ),
    section('Backups', backups.length, () => backupTable(paint, backups)),
    section('Checkpoints', checkpoints.length, () => table(paint, ['checkpoint', 'point'], checkpoints)),
  ].join('\n\n')

  function section(title: string, count: number, body: () => string): string {
    return `${paint.colors.bold(title)}\n${count === 0 ? paint.colors.dim('none') : body()}`
  }
}
