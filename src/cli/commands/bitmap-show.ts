/** `bitmap show`: the bits of a bitmap, now or at any moment of the past, as numbers, extents and a picture of the disk. */
import type { Command } from 'commander'
import { parsePoint } from '../../store/points.ts'
import type { PointInput } from '../../store/types.ts'
import { withExamples } from '../help.ts'
import { parseCount } from '../parse.ts'
import { type StripRow, stripPicture } from '../render/strip.ts'
import { facts } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { bitsShape } from '../shapes.ts'
import { viewAt } from '../view.ts'

interface ShowOptions {
  readonly at?: PointInput
  readonly slice?: number
}

export function bitmapShowCommand(family: Command, session: Session): void {
  withExamples(
    family
      .command('show')
      .description('show the bits of the active slice, or of one slice')
      .argument('<disk>')
      .argument('<bitmap>')
      .option('--at <point>', 'as it was then', parsePoint)
      .option('--slice <n>', 'this slice instead of the active one', parseCount),
    [
      'slicelog --store ./state bitmap show vm-17/vda daily',
      'slicelog --store ./state bitmap show vm-17/vda daily --at 2026-11-18T18:00:00Z --slice 3 --json',
    ],
  ).action((disk: string, bitmap: string, options: ShowOptions) => show(session, disk, bitmap, options))
}

async function show(session: Session, disk: string, bitmap: string, options: ShowOptions): Promise<void> {
  await session.withStore(async (store) => {
    const view = await viewAt(store, options.at, session.signal)
    const which = options.slice === undefined ? {} : { slice: options.slice }
    const bits = await view.bits(disk, bitmap, which)
    // Made before the answer, since text is put together without waiting.
    const rows: StripRow[] = []
    if (session.options.json !== true) {
      const label = options.slice === undefined ? 'α' : `slice ${options.slice}`
      rows.push({
        label: session.paint.unicode ? label : label.replace('α', 'active'),
        bits: await view.dirty(disk, bitmap, which),
      })
    }
    await session.answer(bitsShape(bits, options.slice ?? null), () =>
      [
        facts(session.paint, [
          ['bitmap', `${bitmap} of ${disk}${options.slice === undefined ? '' : `, slice ${options.slice}`}`],
          ['at', text.point(view.point)],
          ['generation', bits.generation],
          ['granularity', text.bytes(bits.granularity)],
          ['dirty', `${text.bytes(bits.count)} in ${text.plural(bits.extents.length, 'extent')}`],
          ...(bits.successorCount === undefined
            ? []
            : [['since the begin', `${text.bytes(bits.successorCount)} dirty`] as const]),
          ['digest', bits.digest],
          ['recording', bits.recording ? 'yes' : 'no'],
          ['busy', bits.busy ? 'yes' : 'no'],
        ]),
        '',
        stripPicture(session.paint, rows),
      ].join('\n'),
    )
  })
}
