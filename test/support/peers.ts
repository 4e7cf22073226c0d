/**
 * The real programs that some proofs need beside them (a real QEMU, its image tool). A test asks for one by name and
 * is reported as skipped, by that name, where the machine lacks it; under CI=true a missing peer is a failing test,
 * because a proof that silently never runs proves nothing. `scripts/peers.mjs` installs what it can before the tests.
 */
import { describe, test } from 'vitest'
import { locate, PEERS } from '../../scripts/peers.mjs'

export type PeerName = keyof typeof PEERS

/** The program's path, or undefined where it is missing. Costs one `command -v` per call. */
export function peer(name: PeerName): string | undefined {
  return locate(name)
}

/**
 * A `describe` over programs that must be there. Where one is missing: skipped with its name and its package in the
 * title, or, under CI=true, one failing test that says the same.
 */
export function describeWithPeers(names: readonly PeerName[], title: string, body: () => void): void {
  const missing = names.filter((name) => peer(name) === undefined)
  if (missing.length === 0) {
    describe(title, body)
    return
  }
  const what = missing.map((name) => `${name} (Debian package ${PEERS[name]})`).join(', ')
  if (process.env.CI === 'true') {
    test(`${title}: needs ${what}`, () => {
      throw new Error(
        `missing on this machine: ${what}; install it, or run without CI=true to skip these proofs`,
      )
    })
    return
  }
  describe.skip(`${title} [skipped: no ${what}]`, body)
}
