//! A virtual machine's network adapters: one for each endpoint of its network namespace.

use serde_json::Value;
use uuid::Uuid;

use super::changes::{Change, Guest, value};
use crate::schema::{
    GuestModifySettingRequest, GuestResource, IpConfig, LinuxNetworkAdapter, ModifySettingRequest,
    NetworkAdapter, NetworkModifyRequest, RequestType, Route,
};
use crate::{Invalid, Result};

/// An adapter for an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterChange {
    /// What a Windows guest has to be told before the adapter is there.
    pub announce: Option<ModifySettingRequest>,
    /// The adapter.
    pub change: Change,
}

/// The endpoints in a namespace, by the Host Compute Network's document of it.
///
/// # Errors
/// The document names an endpoint by something that isn't a GUID.
pub fn endpoints(namespace: &Value) -> Result<Vec<Uuid>> {
    let resources = namespace["Resources"].as_array().into_iter().flatten();
    let endpoints = resources.filter(|resource| resource["Type"] == "Endpoint");
    endpoints
        .map(|endpoint| {
            let id = text(&endpoint["Data"], &["Id", "ID"]);
            id.parse().map_err(|_| Invalid::new("Resources", format!("{id:?} is not a GUID")))
        })
        .collect()
}

/// An adapter for an endpoint of which the Host Compute Network gives a document. `adapter` is a
/// new GUID, `namespace` that of the namespace.
pub fn network_adapter(
    guest: Guest,
    adapter: Uuid,
    namespace: Uuid,
    endpoint: &Value,
) -> AdapterChange {
    let device = NetworkAdapter {
        endpoint_id: text(endpoint, &["ID", "Id"]).to_owned(),
        mac_address: text(endpoint, &["MacAddress"]).to_owned(),
    };
    let path = format!("VirtualMachine/Devices/NetworkAdapters/{adapter}");
    match guest {
        Guest::Linux => {
            let settings = value(&linux_adapter(adapter, namespace, endpoint));
            let guest = Some((GuestResource::Network, settings));
            AdapterChange {
                announce: None,
                change: Change::new(&path, Some(value(&device)), guest),
            }
        }
        Guest::Windows => {
            // What it is a request for is said twice: whether it adds or removes, then how far.
            let request = |request_type, step, settings| GuestModifySettingRequest {
                request_type,
                resource_type: GuestResource::Network,
                settings: Some(value(&NetworkModifyRequest {
                    adapter_id: adapter.to_string(),
                    request_type: Some(step),
                    settings,
                })),
            };
            let whole = |request_type| ModifySettingRequest {
                resource_path: path.clone(),
                request_type,
                settings: Some(value(&device)),
                guest_request: Some(request(request_type, request_type, None)),
            };
            let (add, step) = (RequestType::Add, RequestType::PreAdd);
            AdapterChange {
                announce: Some(ModifySettingRequest {
                    resource_path: String::new(),
                    request_type: add,
                    settings: None,
                    guest_request: Some(request(add, step, Some(endpoint.clone()))),
                }),
                change: Change { add: whole(add), remove: whole(RequestType::Remove) },
            }
        }
    }
}

fn linux_adapter(adapter: Uuid, namespace: Uuid, endpoint: &Value) -> LinuxNetworkAdapter {
    let list = |field: &str| endpoint[field].as_array().cloned().unwrap_or_default();
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let servers = endpoint["Dns"]["ServerList"].as_array().into_iter().flatten();
    let servers: Vec<&str> = servers.filter_map(Value::as_str).collect();
    LinuxNetworkAdapter {
        namespace_id: namespace.to_string(),
        id: adapter.to_string(),
        mac_address: text(endpoint, &["MacAddress"]).to_owned(),
        dns_suffix: text(&endpoint["Dns"], &["Domain"]).to_owned(),
        dns_server_list: servers.join(","),
        ip_configs: list("IpConfigurations")
            .iter()
            .map(|config| IpConfig {
                ip_address: text(config, &["IpAddress"]).to_owned(),
                prefix_length: number(&config["PrefixLength"]).try_into().unwrap_or(u8::MAX),
            })
            .collect(),
        routes: list("Routes")
            .iter()
            .map(|route| Route {
                next_hop: text(route, &["NextHop"]).to_owned(),
                destination_prefix: text(route, &["DestinationPrefix"]).to_owned(),
                metric: number(&route["Metric"]).try_into().unwrap_or(u16::MAX),
            })
            .collect(),
    }
}

/// A field by the first of its spellings that is there.
fn text<'a>(document: &'a Value, names: &[&str]) -> &'a str {
    names.iter().find_map(|name| document[*name].as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ENDPOINT: &str = "8f6a2b2c-1f0e-4b6a-9d3b-0123456789ab";
    const NAMESPACE: &str = "4c9ad5a1-7e0f-4b0f-8a3e-0123456789ab";

    fn endpoint() -> Value {
        json!({
            "ID": ENDPOINT, "MacAddress": "00-15-5D-01-02-03",
            "IpConfigurations": [{"IpAddress": "10.0.0.2", "PrefixLength": 24}],
            "Routes": [{"NextHop": "10.0.0.1", "DestinationPrefix": "0.0.0.0/0", "Metric": 5}],
            "Dns": {"Domain": "a.test", "ServerList": ["10.0.0.53", "10.0.0.54"]},
        })
    }

    fn change(guest: Guest) -> AdapterChange {
        network_adapter(guest, Uuid::nil(), NAMESPACE.parse().unwrap(), &endpoint())
    }

    #[test]
    fn a_namespace_names_its_endpoints() {
        let other = json!({"Type": "Container", "Data": {"Id": "x"}});
        let namespace =
            json!({"Resources": [other, {"Type": "Endpoint", "Data": {"Id": ENDPOINT}}]});
        assert_eq!(endpoints(&namespace).unwrap(), [ENDPOINT.parse::<Uuid>().unwrap()]);
        assert!(endpoints(&json!({})).unwrap().is_empty());
        let bad = json!({"Resources": [{"Type": "Endpoint", "Data": {"Id": "x"}}]});
        assert!(endpoints(&bad).is_err());
    }

    #[test]
    fn a_linux_guest_is_told_its_addresses() {
        let AdapterChange { announce, change } = change(Guest::Linux);
        assert_eq!(announce, None);
        let add = serde_json::to_value(&change.add).unwrap();
        assert_eq!(add["Settings"]["EndpointId"], ENDPOINT);
        let guest = &add["GuestRequest"]["Settings"];
        assert_eq!(guest["NamespaceID"], NAMESPACE);
        assert_eq!(guest["IPConfigs"], json!([{"IPAddress": "10.0.0.2", "PrefixLength": 24}]));
        assert_eq!(guest["DNSServerList"], "10.0.0.53,10.0.0.54");
        assert_eq!(change.remove.request_type, RequestType::Remove);
    }

    #[test]
    fn a_windows_guest_is_told_before() {
        let AdapterChange { announce, change } = change(Guest::Windows);
        let announce = serde_json::to_value(announce.unwrap()).unwrap();
        assert_eq!(announce["GuestRequest"]["RequestType"], "Add");
        assert_eq!(announce["GuestRequest"]["Settings"]["RequestType"], "PreAdd");
        assert_eq!(announce["GuestRequest"]["Settings"]["Settings"], endpoint());
        let add = serde_json::to_value(&change.add).unwrap();
        assert_eq!(add["GuestRequest"]["Settings"]["RequestType"], "Add");
        assert!(add["ResourcePath"].as_str().unwrap().ends_with(&Uuid::nil().to_string()));
    }
}
