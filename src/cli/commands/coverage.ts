/** `coverage`: which points in time can be restored from the copies that are kept, and what would repair the others. */
import type { Command } from 'commander'
import { coverage } from '../../audit/coverage.ts'
import { withExamples } from '../help.ts'
import { coverageText } from '../render/coverage.ts'
import type { Session } from '../session.ts'
import { coverageShape } from '../shapes.ts'

export function coverageCommand(program: Command, session: Session): void {
  withExamples(
    program
      .command('coverage')
      .description(
        'what can be restored: every backed up point, its chain, what broke it and what repairs it',
      )
      .argument('<disk>')
      .option('--bitmap <bitmap>', 'only points of backups over this bitmap, and repairs over it'),
    [
      'slicelog --store ./state coverage vm-17/vda',
      'slicelog --store ./state coverage vm-17/vda --bitmap daily --json',
    ],
  ).action((disk: string, { bitmap }: { bitmap?: string }) => show(session, disk, bitmap))
}

async function show(session: Session, disk: string, bitmap: string | undefined): Promise<void> {
  await session.withStore(async (store) => {
    const report = await coverage(store, disk, {
      ...(bitmap === undefined ? {} : { bitmap }),
      folder: session.folder,
      signal: session.signal,
    })
    await session.answer(coverageShape(report), () => coverageText(session.paint, report))
  })
}
