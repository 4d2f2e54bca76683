-- Argo CD's health of a ServiceLink or a ServiceLinkPolicy (both follow kstatus). See README.md beside this file.
local status = obj.status or {}

local function find(name)
  for _, condition in ipairs(status.conditions or {}) do
    if condition.type == name then
      return condition
    end
  end
  return {}
end

-- A status about an older spec says nothing about this one, neither good nor bad.
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "ServiceLink's operator has not looked at this version yet"}
end

local ready = find("Ready")
local message = ready.message or ready.reason or "Ready is not known yet"
-- Stalled stands only while nothing but a change by its user helps.
if find("Stalled").status == "True" then
  return {status = "Degraded", message = message}
end
if ready.status == "True" then
  return {status = "Healthy", message = message}
end
return {status = "Progressing", message = message}
