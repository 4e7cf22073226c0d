/**
 * A real QEMU and the store side by side, on random commands and writes: after every step both say the same about
 * every bitmap, and QEMU's own digest of its bits is the store's. A failing seed is replayed with SLICELOG_SEED=n.
 */
import { expect, test } from 'vitest'
import { differences } from '../golden/compare.ts'
import type { Expectation, Step } from '../golden/format.ts'
import { Generator, type Profile } from '../golden/generate.ts'
import { Oracle } from '../golden/oracle.ts'
import { Replay } from '../golden/replay.ts'
import { describeWithPeers } from '../support/peers.ts'
import { announce, runs, seed } from '../support/property.ts'
import { NODE, QemuDaemon } from '../support/qemu/daemon.ts'
import { QmpError } from '../support/qemu/qmp.ts'

const PROFILES: readonly { readonly profile: Profile; readonly rules: string }[] = [
  { profile: 'prims', rules: 'R1, R2, R4, R5' },
  { profile: 'gran', rules: 'R4, R5' },
  { profile: 'txn', rules: 'R20, R21' },
  { profile: 'slices', rules: 'R9, R10, R11, R15, R16, R17' },
  { profile: 'resize', rules: 'R7' },
  { profile: 'persist', rules: 'R4' },
  { profile: 'jobs', rules: 'R6, R8, R9, R10' },
]

/** One sequence; returns how many digests were compared. Throws at the first difference, with all steps so far. */
async function sideBySide(profile: Profile, sequenceSeed: number, steps: number): Promise<number> {
  const generator = new Generator(profile, sequenceSeed)
  const replay = await Replay.open(generator.disk.size, profile === 'persist' ? 'folder' : 'memory')
  const oracle = await Oracle.start(generator.disk, generator.withStreams)
  let compared = 0
  try {
    const done: Step[] = []
    let last: Expectation = { error: null }
    for (let i = 0; i < steps; i++) {
      const step = generator.next(last)
      done.push(step)
      last = await oracle.step(step)
      const digests = await oracle.digests()
      const own = { ...(await replay.step(step)), ...(await replay.digests()) }
      const wrong = differences({ ...last, ...digests }, own)
      if (wrong.length > 0)
        throw new Error(
          `${profile}, seed ${sequenceSeed}, step ${i}:\n${wrong.join('\n')}\n${JSON.stringify(done)}`,
        )
      compared += countDigests(digests)
    }
  } finally {
    await replay.close()
    await oracle.stop()
  }
  return compared
}

function countDigests(seen: Pick<Expectation, 'sha256' | 'stream_sha256'>): number {
  const streams = Object.values(seen.stream_sha256 ?? {})
  return (
    Object.keys(seen.sha256 ?? {}).length +
    streams.reduce((sum, { slices }) => sum + 1 + Object.keys(slices).length, 0)
  )
}

describeWithPeers(['qemu-storage-daemon', 'qemu-img'], 'a real QEMU and the store, side by side', () => {
  test.each(PROFILES.map(({ rules, profile }) => [rules, profile] as const))(
    '%s: after every random step (%s) every bitmap has the same digest in QEMU and here',
    async (_, profile) => {
      const start = seed()
      const [sequences, steps] = [runs(1, 20), runs(60, 150)]
      announce(`live qemu ${profile}`, sequences * steps, start)
      let compared = 0
      for (let i = 0; i < sequences; i++) compared += await sideBySide(profile, start + i, steps)
      expect(compared).toBeGreaterThan(sequences)
    },
    1_200_000,
  )

  test('when the daemon is stopped its process and its folder are gone, also after a refused command', async () => {
    const daemon = await QemuDaemon.start('null-co', 1024 * 1024)
    await expect(
      daemon.qmp.execute('block-dirty-bitmap-clear', { node: NODE, name: 'nope' }),
    ).rejects.toThrow(QmpError)
    await daemon.stop()
    await daemon.stop()
    expect(() => daemon.qmp).toThrow('not running')
  })
})
