/** `slice ls|bank|delete`. */
import type { Command } from 'commander'
import { parsePoint } from '../../store/points.ts'
import type { PointInput, SlicesInfo } from '../../store/types.ts'
import { withExamples } from '../help.ts'
import { parseSliceReference, type SliceReference } from '../parse.ts'
import { sliceRows } from '../render/slices.ts'
import { type StripRow, stripPicture } from '../render/strip.ts'
import { table } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { bankShape, slicesShape } from '../shapes.ts'
import { viewAt } from '../view.ts'

export function sliceCommands(program: Command, session: Session): void {
  const family = program
    .command('slice')
    .description("a bitmap's slices: what was written between one point and the next")
  withExamples(
    family
      .command('ls')
      .description('list the slices, with a picture of the disk for each')
      .argument('<disk>')
      .argument('<bitmap>')
      .option('--at <point>', 'as it was then', parsePoint),
    [
      'slicelog --store ./state slice ls vm-17/vda daily',
      'slicelog --store ./state slice ls vm-17/vda daily --at backup:nightly-3 --json',
    ],
  ).action((disk: string, bitmap: string, options: { at?: PointInput }) =>
    list(session, disk, bitmap, options.at),
  )
  withExamples(
    family
      .command('bank')
      .description('freeze the active slice without a backup: a new point in time')
      .argument('<disk>')
      .argument('<bitmap>')
      .option('--force-cycle', 'drop the oldest slice if retention is full'),
    ['slicelog --store ./state slice bank vm-17/vda daily'],
  ).action((disk: string, bitmap: string, options: { forceCycle?: boolean }) =>
    bank(session, disk, bitmap, options.forceCycle === true),
  )
  withExamples(
    family
      .command('delete')
      .description('forget a point in time: its bits merge into the next older slice')
      .argument('<disk>')
      .argument('<bitmap>')
      .argument('<slice>', 'N, or GENERATION.N to have the generation checked', parseSliceReference),
    ['slicelog --store ./state slice delete vm-17/vda daily 2'],
  ).action((disk: string, bitmap: string, slice: SliceReference) => remove(session, disk, bitmap, slice))
}

async function list(
  session: Session,
  disk: string,
  bitmap: string,
  at: PointInput | undefined,
): Promise<void> {
  await session.withStore(async (store) => {
    const view = await viewAt(store, at, session.signal)
    const slices = await view.slices(disk, bitmap)
    const rows: StripRow[] =
      session.options.json === true ? [] : await sliceRows(session.paint, view, disk, bitmap, slices)
    await session.answer(slicesShape(slices), () => picture(session, slices, rows))
  })
}

function picture(session: Session, slices: SlicesInfo, rows: readonly StripRow[]): string {
  const listed =
    slices.slices.length === 0
      ? 'No slices yet: an incremental backup that succeeds makes one, and so does slice bank.'
      : table(
          session.paint,
          ['>slice', '>dirty', 'digest', 'from', 'to', 'lost'],
          slices.slices.map((slice) => [
            slice.slice,
            text.bytes(slice.count),
            text.shortDigest(slice.digest),
            text.point(slice.from),
            text.point(slice.to),
            text.lost(slice.lost) || '-',
          ]),
        )
  const next = session.paint.colors.dim(
    `generation ${slices.generation}; the active slice will be number ${slices.next}`,
  )
  return [listed, next, '', stripPicture(session.paint, rows)].join('\n')
}

async function bank(session: Session, disk: string, bitmap: string, forceCycle: boolean): Promise<void> {
  await session.withStore(async (store) => {
    const answer = await store
      .disk(disk)
      .bitmap(bitmap)
      .bank({ forceCycle, ...session.commandOptions })
    await session.confirm(
      bankShape(answer),
      () => `Banked slice ${answer.slice} of ${bitmap}.${dropped(answer.droppedSlices)}`,
    )
  })
}

async function remove(
  session: Session,
  disk: string,
  bitmap: string,
  reference: SliceReference,
): Promise<void> {
  await session.withStore(async (store) => {
    const { slice, generation } = reference
    const checked = generation === undefined ? {} : { generation }
    const answer = await store
      .disk(disk)
      .bitmap(bitmap)
      .deleteSlice(slice, { ...checked, ...session.commandOptions })
    await session.confirm({ disk, bitmap, ...answer }, () =>
      answer.into === null
        ? `Dropped slice ${slice} of ${bitmap}: it was the oldest.`
        : `Point ${slice} of ${bitmap} is forgotten: its bits are in slice ${answer.into}.`,
    )
  })
}

/** ` Dropped slice 0.`, or nothing. */
export function dropped(slices: readonly Readonly<Record<string, number>>[]): string {
  const numbers = slices.flatMap((slice) => Object.values(slice))
  return numbers.length === 0 ? '' : ` Dropped slice ${numbers.join(', ')}.`
}
