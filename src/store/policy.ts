/**
 * How coarse the past may become with age (R29): `7d:1m,90d:1h` keeps every write for seven days, one window a minute for ninety,
 * one an hour after that.
 */
import { CheckpointError } from '../errors.ts'

export interface CompactionRule {
  /** Writes older than this many ms … */
  readonly olderThan: number
  /** … become windows of at most this many ms. */
  readonly window: number
}

/** Ascending by age; a higher age has the longer window. */
export type CompactionPolicy = readonly CompactionRule[]

/** As text, or as rules. */
export type PolicyInput = string | CompactionPolicy

export const DEFAULT_POLICY = '7d:1m,90d:1h'

const SECOND = 1000
const UNITS: Readonly<Record<string, number>> = {
  ms: 1,
  s: SECOND,
  m: 60 * SECOND,
  h: 3600 * SECOND,
  d: 86_400 * SECOND,
  w: 7 * 86_400 * SECOND,
}
const RULES_MAX = 16

/** @throws CheckpointError POLICY_INVALID; TypeError when it is neither text nor a list */
export function policyOf(input: PolicyInput): CompactionPolicy {
  if (typeof input === 'string')
    return checked(
      input.split(',').map((rule) => parseRule(rule, input)),
      input,
    )
  if (!Array.isArray(input))
    throw new TypeError('a policy is a text such as "7d:1m,90d:1h", or a list of { olderThan, window } in ms')
  return checked(input.map(({ olderThan, window }) => ({ olderThan, window })))
}

export function formatPolicy(policy: CompactionPolicy): string {
  return policy.map(({ olderThan, window }) => `${duration(olderThan)}:${duration(window)}`).join(',')
}

function parseRule(text: string, whole: string): CompactionRule {
  const [age, window, more] = text.trim().split(':')
  if (age === undefined || window === undefined || more !== undefined)
    throw invalid(whole, `"${text}" is no rule`)
  return { olderThan: parseDuration(age, whole), window: parseDuration(window, whole) }
}

function parseDuration(text: string, whole: string): number {
  const [, digits, unit] = /^(\d+)(ms|s|m|h|d|w)$/.exec(text.trim()) ?? []
  const value = digits === undefined || unit === undefined ? Number.NaN : Number(digits) * UNITS[unit]!
  if (!Number.isSafeInteger(value)) throw invalid(whole, `"${text}" is no time such as 90s, 1m, 6h, 7d or 2w`)
  return value
}

function checked(rules: readonly CompactionRule[], whole = JSON.stringify(rules)): CompactionPolicy {
  if (rules.length === 0 || rules.length > RULES_MAX) throw invalid(whole, `it needs 1 to ${RULES_MAX} rules`)
  rules.forEach(({ olderThan, window }, i) => {
    const before = rules[i - 1]
    if (!(Number.isSafeInteger(olderThan) && olderThan >= 0))
      throw invalid(whole, 'an age is a whole number of ms')
    if (!(Number.isSafeInteger(window) && window > 0))
      throw invalid(whole, 'a window is a whole number of ms above 0')
    if (before !== undefined && !(before.olderThan < olderThan && before.window < window))
      throw invalid(whole, 'ages and windows must both rise from rule to rule')
  })
  return rules
}

/** In the largest unit that divides it. */
function duration(ms: number): string {
  if (ms === 0) return '0s'
  const unit = Object.keys(UNITS)
    .filter((name) => name !== 'w')
    .reverse()
    .find((name) => ms % UNITS[name]! === 0)!
  return `${ms / UNITS[unit]!}${unit}`
}

function invalid(policy: string, why: string): CheckpointError {
  return new CheckpointError(
    'POLICY_INVALID',
    `${policy === '' ? '""' : policy} is no policy: ${why}; give for instance 7d:1m,90d:1h (every write for 7 days, one window a minute for 90, one an hour after)`,
    { policy },
  )
}
