/** `compact`: fold old writes into windows and give their space back (R29). */
import type { Command } from 'commander'
import type { Compacted } from '../../store/compactor.ts'
import { DEFAULT_POLICY, policyOf } from '../../store/policy.ts'
import { bytesIn } from '../../store/store.ts'
import { withExamples } from '../help.ts'
import { facts } from '../render/table.ts'
import * as text from '../render/text.ts'
import type { Session } from '../session.ts'
import { compactShape } from '../shapes.ts'

interface CompactChoices {
  readonly policy?: string
  readonly dryRun?: boolean
}

export function compactCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('compact')
      .description(
        'fold old writes into windows: bitmaps, slices and plans of the past stay bit-identical, points inside a window are read as its edges',
      )
      .option(
        '--policy <rules>',
        `AGE:WINDOW,…: how coarse writes become with age; with ms, s, m, h, d or w (default: the owner's, else ${DEFAULT_POLICY})`,
      )
      .option('--dry-run', 'tell what it would give back, and change nothing'),
    [
      'slicelog --store ./state compact --dry-run',
      'slicelog --store ./state compact --policy 7d:1m,90d:1h',
      'slicelog --store ./state compact --policy 1d:10s --json',
    ],
  ).action((choices: CompactChoices) => compact(session, choices))
}

async function compact(session: Session, { policy, dryRun = false }: CompactChoices): Promise<void> {
  if (policy !== undefined) policyOf(policy) // Refused before a store is opened.
  const { folder, before, compacted } = await session.withStore(async (store) => {
    const bar = session.progress('compact')
    const { actor } = session.commandOptions
    const before = await bytesIn(store.folder, 'log')
    const compacted = await store
      .compact({
        ...(policy === undefined ? {} : { policy }),
        ...(actor === undefined ? {} : { actor }),
        dryRun,
        signal: session.signal,
        onProgress: (position, last) => bar.update(position, last),
      })
      .finally(() => bar.stop())
    return { folder: store.folder, before, compacted }
  })
  // LevelDB drops replaced files a little later: of a store that only this command had open, all of them by the time it is closed.
  const after = await bytesIn(folder, 'log')
  await session.answer(compactShape(compacted, dryRun, { before, after }), () =>
    forPeople(session, compacted, dryRun, before, after),
  )
}

function forPeople(
  session: Session,
  done: Compacted,
  dryRun: boolean,
  before: number,
  after: number,
): string {
  const { colors } = session.paint
  if (done.runs === 0) {
    const upTo = done.upTo.position < 0 ? 'nothing is that old' : `up to ${text.point(done.upTo)}`
    return `Nothing to fold by ${done.policy}: ${upTo}.`
  }
  const share = `${text.bytes(done.bytesBefore)} became ${text.bytes(done.bytesAfter)}`
  return facts(session.paint, [
    [
      dryRun ? 'would fold' : 'folded',
      `${text.plural(done.events, 'write')} into ${text.plural(done.windows, 'window')}`,
    ],
    ['policy', done.policy],
    ['records', dryRun ? share.replace('became', 'would become') : share],
    ...(dryRun
      ? []
      : [
          [
            'log on disk',
            `${text.bytes(before)} before, ${colors.green(text.bytes(after))} now${session.live === undefined ? '' : ', what its owner still reads not given back yet'}`,
          ] as const,
        ]),
    ['up to', text.point(done.upTo)],
  ])
}
