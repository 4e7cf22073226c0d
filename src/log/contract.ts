/**
 * What every EventLog must do, as a suite for whoever writes one: bring `test` of your framework and a way to open an empty
 * log. Checks are node:assert's, so any framework that fails a test on a throw will do.
 */
import { APPEND_CASES } from './contract-append.ts'
import type { ContractSubject } from './contract-chain.ts'
import { FOLLOW_CASES } from './contract-follow.ts'
import { RUN_CASES } from './contract-runs.ts'

export { ContractChain, type ContractSubject, readAll } from './contract-chain.ts'

export interface ContractOptions {
  readonly name: string
  /** A new empty log. */
  readonly open: () => Promise<ContractSubject>
  readonly test: (title: string, run: () => Promise<void>) => void
}

/** Registers the suite. */
export function eventLogContract({ name, open, test }: ContractOptions): void {
  for (const [title, run] of Object.entries({ ...APPEND_CASES, ...FOLLOW_CASES, ...RUN_CASES })) {
    test(`${name}: ${title}`, async () => {
      const subject = await open()
      try {
        await run(subject)
      } finally {
        await subject.log.close()
        await subject.dispose?.()
      }
    })
  }
}
