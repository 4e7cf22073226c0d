/** `explain`: why a backup has the size it has, in one command (R27). */
import type { Command } from 'commander'
import { explainBackup } from '../../audit/explain.ts'
import { withExamples } from '../help.ts'
import { parsePositiveCount } from '../parse.ts'
import { explainReport } from '../render/explain.ts'
import type { Session } from '../session.ts'
import { explainShape } from '../shapes.ts'

export function explainCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('explain')
      .description(
        'why a backup has its size: its base, what it merged, when and where was written, and what to do',
      )
      .argument('<backup>')
      .option('--top <n>', 'hottest places in --json (default: 8)', parsePositiveCount),
    ['slicelog --store ./state explain nightly-17', 'slicelog --store ./state explain nightly-17 --json'],
  ).action((backup: string, options: { top?: number }) => explain(session, backup, options.top))
}

async function explain(session: Session, backup: string, top: number | undefined): Promise<void> {
  await session.withStore(async (store) => {
    const bar = session.progress('explain')
    const explained = await explainBackup(store, backup, {
      ...(top === undefined ? {} : { top }),
      signal: session.signal,
      onProgress: (done, total) => bar.update(done, total),
    }).finally(() => bar.stop())
    await session.answer(explainShape(explained), () => explainReport(session.paint, explained))
  })
}
