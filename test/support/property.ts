/**
 * How many rounds a proof runs: a stated minimum in the test command, a large count in `npm run test:full`.
 * Every proof prints its count and seed, so that a failure elsewhere can be replayed here (SLICELOG_SEED=n).
 */
export const full = process.env.SLICELOG_FULL === '1'

export function runs(normal: number, large: number): number {
  return full ? large : normal
}

export function seed(): number {
  const given = process.env.SLICELOG_SEED
  return given === undefined ? Math.floor(Math.random() * 0x7fffffff) : Number(given)
}

/** Parameters for `fc.assert`, announced on stderr as `proof: NAME: N rounds, seed S`. */
export function proof(name: string, normal: number, large: number): { numRuns: number; seed: number } {
  const parameters = { numRuns: runs(normal, large), seed: seed() }
  announce(name, parameters.numRuns, parameters.seed)
  return parameters
}

export function announce(name: string, rounds: number, usedSeed: number): void {
  process.stderr.write(`proof: ${name}: ${rounds} rounds, seed ${usedSeed}\n`)
}

/** A small deterministic generator (mulberry32) for proofs that are not fast-check properties. */
export function prng(initial: number): () => number {
  let state = initial >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}
